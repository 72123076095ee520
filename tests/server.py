"""A real `smmf serve` in processes of its own, for tests, on free ports."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from smmf_core.loadgen.local import free_port

START_S = 60.0  # a loaded machine; usually it takes half a second
_POLL_S = 0.02


def echo_toml(name: str = "echo", **sections: dict[str, Any]) -> str:
    """An echo model's file; keyword arguments are sections with their keys."""
    sections.setdefault("deployment", {}).setdefault("max_concurrency", 64)
    sections.setdefault("optimization", {}).setdefault("max_batch_size", 256)
    lines = ["[model]", f'name = "{name}"', 'backend = "echo"']
    for section, keys in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join(lines) + "\n"


_given: set[int] = set()


def fresh_port() -> int:
    """A free port that no other server of this run was given."""
    while (port := free_port()) in _given:
        continue
    _given.add(port)
    return port


class Server:
    """`smmf serve` on `folder`: files in it are the models, `smmf.toml` the server's config."""

    model = "echo"

    def __init__(self, folder: Path, *flags: str, run_dir: Path | None = None) -> None:
        self.folder = folder
        self.port, self.admin_port = fresh_port(), fresh_port()
        self.run_root = run_dir or folder / "run"
        self.run_root.mkdir(exist_ok=True)
        self.flags = flags
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "serve.log"
        self.trust: ssl.SSLContext | None = None  # set where it serves HTTPS
        self.key = ""  # of its user, where it needs one

    @property
    def base_url(self) -> str:
        scheme = "http" if self.trust is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}/v1"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def run_dir(self) -> Path:
        return self.run_root / "smmf" / "default"

    @property
    def environment(self) -> dict[str, str]:
        extra = {
            "XDG_RUNTIME_DIR": str(self.run_root),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "SMMF_URL": self.admin_url,
            **({"SMMF_API_KEY": self.key} if self.key else {}),
        }
        return {**os.environ, **extra}

    def start(self, wait: bool = True, stderr: int | None = None) -> Server:
        """`stderr`: a descriptor for it; else it goes into the log, too."""
        targets = [str(path) for path in sorted(self.folder.glob("local-*.toml"))]
        config = self.folder / "smmf.toml"
        flags = [*self.flags, *(["--config", str(config)] if config.exists() else [])]
        ports = ["--port", str(self.port), "--admin-port", str(self.admin_port)]
        command = [sys.executable, "-m", "smmf_core.cli.main", "serve", *targets, *ports, *flags]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log if stderr is None else stderr,
                env=self.environment,
            )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout_s: float = START_S) -> None:
        """Until /ready answers 200. Raises RuntimeError with the log when it does not."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            if self.process is not None and self.process.poll() is not None:
                break
            try:
                if self.get("/ready")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(_POLL_S)
        logs = [path.read_text()[-2000:] for path in self.run_dir.glob("logs/*.log")]
        raise RuntimeError(f"not ready: {self.log.read_text()[-3000:]}\n{logs}")

    def wait_admin(self, timeout_s: float = START_S) -> None:
        """Until the admin API answers, whether there is a model or not."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            try:
                self.admin("GET", "/admin/v1/health")
            except OSError:
                time.sleep(_POLL_S)
            else:
                return
        raise RuntimeError(f"no admin API: {self.log.read_text()[-3000:]}")

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = self._connection()
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            sent = {"Content-Type": "application/json", **(headers or {})}
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            names = {key.lower(): value for key, value in response.getheaders()}
            return response.status, names, response.read()
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self.trust is not None:
            return http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=60, context=self.trust
            )
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        return self.request("GET", path)

    def chat(self, text: str = "hi", **fields: Any) -> tuple[int, dict[str, str], bytes]:
        body = {"model": "echo", "messages": [{"role": "user", "content": text}], **fields}
        return self.request("POST", "/v1/chat/completions", body)

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON; it must be a good one."""
        status, answer = self.ask_admin(method, path, body)
        assert status < 300, (status, answer)
        return answer

    def ask_admin(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """(status, JSON)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=60)
        try:
            data = None if body is None else json.dumps(body).encode()
            headers = {"Content-Type": "application/json"}
            if self.key:
                headers["Authorization"] = f"Bearer {self.key}"
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"null")
        finally:
            connection.close()

    def instances(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.admin("GET", "/admin/v1/instances?all=1")
        return rows

    def pid_of(self, role: str) -> int:
        """The process id of the first living child with this role: "worker" or "router"."""
        rows = [row for row in self.instances() if row.get("role", "worker") == role and row["pid"]]
        return int(rows[0]["pid"])

    def metrics(self) -> dict[str, float]:
        """Samples of /metrics by their full name."""
        lines = self.get("/metrics")[2].decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; returns the exit status. Raises TimeoutExpired if it does not end."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=60)
