"""A ControllerCore whose effects are written down, for tests: what to spawn, send, end."""

from __future__ import annotations

from typing import Any

from smmf_core.config import Deployment, Model, ModelConfig, Server, ServerConfig, Timeouts
from smmf_core.control_messages import (
    Hello,
    ModelLoad,
    RouterReport,
    WorkerReport,
)
from smmf_core.controller.core import ControllerCore
from smmf_core.controller.table import ROUTER, WORKER
from smmf_core.lifecycle import Child
from smmf_core.messages import PROTOCOL
from smmf_core.registry import LiveRegistry

SPEC = "hash"
R0, W0, W1 = (ROUTER, 0), (WORKER, 0), (WORKER, 1)


def model(name: str = "m", replicas: int = 1, **deployment: Any) -> ModelConfig:
    return ModelConfig(
        Model(name, "echo"), Deployment(replicas=replicas, max_concurrency=10, **deployment)
    )


class Rig:
    """A core whose effects are written down; `take` returns those since the last time."""

    def __init__(
        self,
        models: list[ModelConfig] | None = None,
        routers: int = 1,
        ids: dict[str, int] | None = None,
    ) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.refusal: Exception | None = None
        self.next_pid = 100
        self.accepted = 0
        registry = LiveRegistry()
        for config in models or [model()]:
            registry.add(config, created=1)
        config = ServerConfig(Server(routers=routers), Timeouts(drain_s=30, start_s=1, load_s=900))
        self.core = ControllerCore(config, registry, self)
        self.core.plan(ids or {})

    # Effects
    def spawn(self, child: Child) -> int:
        if self.refusal is not None:
            raise self.refusal
        self.log.append(("spawn", child.name, child.incarnation))
        self.next_pid += 1
        return self.next_pid

    def kill(self, child: Child, force: bool) -> None:
        self.log.append(("KILL" if force else "TERM", child.name))

    def welcome(self, child: Child) -> None:
        self.log.append(("welcome", child.name))

    def send(self, child: Child, message: Any) -> None:
        self.log.append(("send", child.name, message))

    def attach(self, worker: Child, router: Child, slots: int) -> None:
        self.log.append(("attach", worker.name, worker.incarnation, router.name, slots))

    def publish(self) -> None:
        self.log.append(("publish",))

    def record(self, child: Child, former: str) -> None:
        self.log.append(("record", child.name, former, child.state))

    def note(self, kind: str, name: str, text: str) -> None:
        self.log.append(("note", kind, name, text))

    # the world
    def take(self, *kinds: str) -> list[tuple[Any, ...]]:
        wanted = kinds or ("spawn", "KILL", "TERM", "welcome", "send", "attach")
        taken = [entry for entry in self.log if entry[0] in wanted]
        self.log.clear()
        return taken

    def __getitem__(self, key: tuple[str, int]) -> Child:
        return self.core.children[key]

    def hello(self, key: tuple[str, int], now: float = 0.0, **fields: Any) -> None:
        child = self[key]
        state = "starting" if child.role == ROUTER else "loading"
        said = Hello(PROTOCOL, "b", *key, child.incarnation, child.pid, "", state, [])
        for name, value in fields.items():
            setattr(said, name, value)
        self.core.on_hello(child, said, SPEC, now)

    def report(self, key: tuple[str, int], state: str, now: float = 0.0, reason: str = "") -> None:
        if key[0] == ROUTER:
            self.core.on_router_report(self[key], RouterReport([], [], 0, state, b""), now)
        else:
            said = WorkerReport(state, 1.0, reason, 4096, ["chat"], 0, 0, 0, 0)
            self.core.on_worker_report(self[key], said, now)

    def exit(self, key: tuple[str, int], now: float = 0.0, reason: str = "killed") -> None:
        self.core.on_exit(self[key], reason, now)

    def all_ready(self, now: float = 0.0) -> None:
        self.core.start(now)
        for key in self.core.children:
            self.hello(key, now)
            self.report(key, "ready", now)
        self.take()

    def start_all(self, now: float = 0.0) -> None:
        """Everything that was just spawned says Hello and gets ready."""
        for key, child in list(self.core.children.items()):
            if child.state == "starting":
                self.hello(key, now)
                self.report(key, "ready", now)

    def use(
        self, index: int, waiting: int = 0, running: int = 0, now: float = 0.0, **more: Any
    ) -> None:
        """The first Router tells what it has of one model."""
        self.accepted += waiting + running
        load = ModelLoad(index, waiting, running, self.accepted, **more)
        said = RouterReport([load], [], 0, "ready", b"")
        self.core.on_router_report(self[R0], said, now)

    def child(self, name: str) -> Child:
        return self.core.find_instance(name)

    def states(self) -> dict[str, str]:
        """Of all replicas that are alive or about to be."""
        return {c.name: c.state for c in self.core.workers() if c.is_shown}
