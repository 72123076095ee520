"""Three models, memory for one, ten clients that pick models at random: does each request succeed,
and how many loads does it take?

The loads are compared with two figures of the very requests that were made: the `bound`, which no
order of loads can beat (the client that changed its model most often needs so many), and `batches`,
what a scheduler would need that knows all clients' next wishes, needs no time to load, and always
serves, to the end, the model that most clients wait for.
"""

from __future__ import annotations

import http.client
import json
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.serve.contestants import Smmf, get

MODELS = ("a", "b", "c")
CLIENTS = 10
DURATION_S = 60.0
LOAD_S = 0.5
_SERVER = "[memory]\nbudget_gib = 1\n[timeouts]\nload_wait_s = 60\n"
_TIMEOUT_S = 120.0
_POLL_S = 1.0


@dataclass(slots=True)
class Client:
    """What one client asked for, in order, and how it went."""

    asked: list[str] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def run(self, port: int, seed: int, until: float) -> None:
        draw = random.Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
        while time.monotonic() < until:
            model = draw.choice(MODELS)
            self.asked.append(model)
            began = time.monotonic()
            try:
                error = ask(connection, model)
            except (OSError, http.client.HTTPException) as failure:
                error = repr(failure)
                connection.close()
            self.waits_s.append(time.monotonic() - began)
            if error:
                self.errors.append(error)
        connection.close()


def swap_storm(duration_s: float = DURATION_S, load_s: float = LOAD_S) -> dict[str, Any]:
    server = start(load_s)
    try:
        clients = [Client() for _ in range(CLIENTS)]
        until = time.monotonic() + duration_s
        threads = [
            threading.Thread(target=client.run, args=(server.port, seed, until))
            for seed, client in enumerate(clients)
        ]
        for thread in threads:
            thread.start()
        loads = _count_loads(server, threads)
    finally:
        server.stop()
    waits_s = sorted(wait for client in clients for wait in client.waits_s)
    wishes = [client.asked for client in clients]
    return {
        "requests": len(waits_s),
        "errors": dict(Counter(error for client in clients for error in client.errors)),
        "loads": loads,  # the one at the start included
        "bound": bound(wishes),
        "batches": batches(wishes),
        "requests_per_load": len(waits_s) / max(1, loads),
        "wait_p50_s": waits_s[len(waits_s) // 2],
        "wait_max_s": waits_s[-1],
        "load_s": load_s,
    }


def start(load_s: float) -> Smmf:
    """Each model needs more than half of the budget; the first is there from the start."""
    models = {name: _model(name, load_s, is_first=name == MODELS[0]) for name in MODELS}
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        config.write(_SERVER)
        config.flush()
        return Smmf(models, "--config", config.name)


def bound(wishes: Sequence[Sequence[str]]) -> int:
    return max(_runs(wish) for wish in wishes)


def batches(wishes: Sequence[Sequence[str]]) -> int:
    at = [0] * len(wishes)
    loads = 0
    while heads := [w[n] for w, n in zip(wishes, at, strict=True) if n < len(w)]:
        model = Counter(heads).most_common(1)[0][0]
        loads += 1
        for client, wish in enumerate(wishes):
            while at[client] < len(wish) and wish[at[client]] == model:
                at[client] += 1
    return loads


def _runs(wish: Sequence[str]) -> int:
    return sum(n == 0 or model != wish[n - 1] for n, model in enumerate(wish))


def _model(name: str, load_s: float, is_first: bool) -> str:
    return (
        f'[model]\nname = "{name}"\nbackend = "echo"\n'
        f"[deployment]\nmemory_gib = 0.6\nautostart = {str(is_first).lower()}\n"
        f"[engine]\ntokens = 8\nstep_ms = 5\nload_s = {load_s}\n"
    )


def ask(connection: http.client.HTTPConnection, model: str) -> str:
    """ "": well answered."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    if response.status == 200 and answer["choices"][0]["finish_reason"] == "stop":
        return ""
    return f"{response.status} {answer}"


def _count_loads(server: Smmf, threads: list[threading.Thread]) -> int:
    """By the events, while the clients run: one per replica that became ready."""
    admin = f"http://127.0.0.1:{server.admin_port}"
    replicas = {f"{model}-0" for model in MODELS}
    seen: set[tuple[float, str]] = set()
    is_last = False
    while not is_last:
        is_last = not any(thread.is_alive() for thread in threads)
        events = json.loads(get(admin, "/admin/v1/events")[1])
        ready = [e for e in events if e["state"] == "ready" and e["id"] in replicas]
        seen.update((event["time"], event["id"]) for event in ready)
        for thread in threads:
            thread.join(_POLL_S / len(threads))
    return len(seen)
