"""A real PostgreSQL for the tests: one that is installed, or the one that `make test` has fetched.

Nothing is skipped silently: without one the tests fail, unless SMMF_TEST_WITHOUT has `postgres`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import engines_env
import pytest
from server import fresh_port

USER, PASSWORD = "smmf", "a word of its own"
START_S = 60.0
_POLL_S = 0.02


def programs() -> Path:
    """The folder of `initdb` and `postgres`: SMMF_TEST_POSTGRES, else Debian's newest."""
    if engines_env.POSTGRES in engines_env.WITHOUT:
        pytest.skip(f"{engines_env.VARIABLE} has {engines_env.POSTGRES}")
    given = os.environ.get("SMMF_TEST_POSTGRES")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: len(path.parts))
    for folder in [Path(given)] if given else reversed(debian):
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    pytest.fail(
        "there is no PostgreSQL: use `make test`, which fetches one, install Debian's package "
        "`postgresql`, name the folder of another's programs in SMMF_TEST_POSTGRES, or leave these "
        f"tests out with {engines_env.VARIABLE}={engines_env.POSTGRES}",
        pytrace=False,
    )


class Postgres:
    """A server of its own on a free loopback port, with its data in a folder under /tmp.

    It refuses to run as root, and then runs as `nobody`.
    """

    def __init__(self) -> None:
        found = programs()
        self.folder = Path(tempfile.mkdtemp(prefix="smmf-postgres-"))
        self.port = fresh_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._as_user = {"user": "nobody", "group": 65534, "extra_groups": []} if _is_root() else {}
        if self._as_user:
            shutil.chown(self.folder, "nobody", 65534)
        self._programs = self._reachable(found)
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        flags = ["--pgdata", str(self.data), "--username", USER, f"--pwfile={password}"]
        flags += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        self._run("initdb", *flags)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def url(self, database: str = "postgres") -> str:
        word = PASSWORD.replace(" ", "%20")
        return f"postgresql://{USER}:{word}@127.0.0.1:{self.port}/{database}"

    def start(self) -> Postgres:
        """Answers when this returns. Raises RuntimeError with its log when it does not."""
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            if self._process is None or self._process.poll() is not None:
                self._process = self._spawn()  # also while one that was killed is still ending
            if self._is_ready():
                return self
            time.sleep(_POLL_S)
        raise RuntimeError((self.folder / "log").read_text()[-3000:])

    def kill(self) -> None:
        """SIGKILL: its other processes end when they find it gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """All its processes stand still: connections stay open, and nothing is answered."""
        self._signal_all(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal_all(signal.SIGCONT)

    def remove(self) -> None:
        if self._process is not None:
            self.go_on()
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=30)
        shutil.rmtree(self.folder)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [str(self._programs / "postgres"), "-D", str(self.data), "-F"]
        command += ["-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._as_user
            )

    def _is_ready(self) -> bool:
        """The last line of its own file says so."""
        try:
            lines = (self.data / "postmaster.pid").read_text().split("\n")
        except OSError:
            return False
        pid = self._process.pid if self._process is not None else 0
        return lines[0] == str(pid) and len(lines) > 7 and lines[7].strip() == "ready"

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for pid in [self._process.pid, *map(int, children.read_text().split())]:
            os.kill(pid, number)

    def _reachable(self, folder: Path) -> Path:
        """The programs, where the user that runs them can reach them: a home may be closed."""
        try:
            self._run(str(folder / "initdb"), "--version")
        except PermissionError:
            root = folder.parent.parent
            copied = self.folder / "programs" / root.name
            shutil.copytree(folder.parent, copied / folder.parent.name)
            for libraries in root.parent.glob(f"{root.name}.libs"):
                shutil.copytree(libraries, copied.parent / libraries.name)
            return copied / folder.parent.name / folder.name
        return folder

    def _run(self, program: str, *flags: str) -> None:
        command = [program if os.sep in program else str(self._programs / program), *flags]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, **self._as_user
        )
        assert done.returncode == 0, done.stdout + done.stderr


def _is_root() -> bool:
    return os.geteuid() == 0
