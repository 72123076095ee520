"""What the Controller decides: which processes to start, adopt, connect, drain, kill, restart.

Pure: time is a parameter, acts go through Effects. Owns the state of every child; must not know
sockets, descriptors or files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

from smmf_core.config import ServerConfig
from smmf_core.controller import adapters, rings
from smmf_core.errors import CannotStart, ControlError
from smmf_core.lifecycle import (
    DRAINING,
    LOADING,
    READY,
    STARTING,
    STOPPED,
    Child,
    model_state,
)
from smmf_core.messages import (
    PROTOCOL,
    Drain,
    Hello,
    Registry,
    RouterReport,
    ToChild,
    WorkerEntry,
    WorkerLost,
    WorkerReport,
)
from smmf_core.registry import Model, ModelRegistry

ROUTER, WORKER = "router", "worker"
ADOPT_S = 5.0  # children look for a Controller every 0.2 s; one in a long engine step is later
DRAIN_MARGIN_S = 2.0  # a child ends its drain by itself; only then is it told by a signal
TERM_WAIT_S = 5.0  # from SIGTERM to SIGKILL
MAX_LOSSES = 3  # new rings for a Worker that a Router cannot reach; then it is restarted

Key = tuple[str, int]


class Effects(Protocol):
    """What the core has done by its shell."""

    def spawn(self, child: Child) -> int:
        """Start its process and return the pid. Raises OSError, or CannotStart."""

    def kill(self, child: Child, force: bool) -> None:
        """SIGTERM, or SIGKILL with `force`."""

    def welcome(self, child: Child) -> None: ...
    def send(self, child: Child, message: ToChild) -> None: ...
    def attach(self, worker: Child, router: Child, slots: int) -> None:
        """Make a ring and give its ends to both."""

    def publish(self) -> None:
        """What Routers know is old: send `registry_message` at the end of this turn."""

    def record(self, child: Child, former: str) -> None:
        """A state has changed."""


class ControllerCore:
    """The Controller's decisions. The shell calls the `on_x` events, and `on_timer` at
    `next_deadline`."""

    def __init__(self, config: ServerConfig, registry: ModelRegistry, effects: Effects) -> None:
        self._config = config
        self._effects = effects
        self.registry = registry
        self.children: dict[Key, Child] = {}
        self.is_stopping = False

    # --- what should run ---

    def plan(self, worker_ids: dict[str, int]) -> None:
        """Make a slot per Router and replica. `worker_ids` are those of a former Controller."""
        for router in range(self._config.server.routers):
            self.children[ROUTER, router] = Child(ROUTER, router, f"router-{router}")
        next_id = max(worker_ids.values(), default=-1) + 1
        for model in self.registry:
            deployment = model.config.deployment
            for replica in range(deployment.replicas):
                name = f"{model.name}-{replica}"
                worker = worker_ids.get(name)
                if worker is None:
                    worker, next_id = next_id, next_id + 1
                child = Child(WORKER, worker, name, model.index, deployment.max_concurrency)
                child.wanted = deployment.autostart
                self.children[child.key] = child

    def adopt(self, key: Key, name: str, incarnation: int, pid: int, now: float) -> None:
        """A former Controller's process; pid 0: it is gone, only its incarnation counts."""
        child = self.children.get(key)
        if child is None or child.name != name:
            if not pid:
                return
            child = self.children[key] = Child(*key, name, wanted=False)  # nobody wants it now
        child.incarnation = incarnation
        if pid:
            child.state, child.pid, child.adopting = STARTING, pid, True
            child.act_at = now + ADOPT_S
            self._effects.record(child, STOPPED)

    def start(self, now: float) -> None:
        """Spawn what is wanted and was not adopted; Routers first: they are waited for."""
        for child in self.children.values():
            if child.state == STOPPED and child.wanted:
                self._spawn(child, now)

    # --- events ---

    def on_hello(self, child: Child, hello: Hello, spec_hash: str, now: float) -> None:
        """A child connected, for the first time or again; the shell has checked who it is.

        1. It speaks another protocol, or runs what is no longer wanted: drain; its successor
           starts when it has ended.
        2. Else it is welcome, and told whom it is connected with.
        """
        child.connected = True
        was_adopting, child.adopting = child.adopting, False
        child.rings = set(hello.attached)
        is_other = hello.spec_hash not in ("", spec_hash)
        if hello.protocol != PROTOCOL or is_other or not child.wanted:  # 1
            if child.state == STARTING:
                self._stop(child, now, self._drain_s, drains=True)
            return
        self._effects.welcome(child)  # 2
        if was_adopting:
            child.act_at = self._load_deadline(now)
        self._follow(child, hello.state, "", now)
        peers = self._peers(child)
        rings.drop_stale(child, peers, self._effects)
        for peer in peers:
            self._connect(child, peer, is_new=not hello.spec_hash)
        self._effects.publish()

    def on_disconnect(self, child: Child) -> None:
        """It reconnects by itself if it lives; its pidfd tells if not."""
        child.connected = False

    def on_worker_report(self, child: Child, report: WorkerReport, now: float) -> None:
        child.observe(report, now)
        model = self._model_of(child)
        facts = (report.context_length, report.capabilities)
        if model is not None and facts[0] and facts != (model.context_length, model.capabilities):
            model.context_length, model.capabilities = facts
            self._effects.publish()
        self._follow(child, report.state, report.reason, now)
        if model is not None and child.state == READY:
            replicas = self.replicas(model)
            if adapters.on_report(model, report, replicas, self._effects.send):
                self._effects.publish()

    def on_router_report(self, child: Child, report: RouterReport, now: float) -> None:
        child.observe(report, now)
        self._follow(child, report.state, "", now)

    def on_worker_lost(self, router: Child, lost: WorkerLost, now: float) -> None:
        """A Router cannot reach a living Worker: new rings, a few times; then a new Worker."""
        worker = self.children.get((WORKER, lost.worker))
        if worker is None or worker.incarnation != lost.incarnation or worker.state != READY:
            return
        worker.losses += 1
        worker.reason = lost.reason
        if worker.losses > MAX_LOSSES:
            self._effects.kill(worker, True)
            return
        rings.forget(worker, router)
        self._connect(worker, router, is_new=False)

    def on_exit(self, child: Child, reason: str, now: float, is_unfit: bool = False) -> None:
        """Its process is gone.

        1. Its peers forget it.
        2. It had been told to end: its successor starts, if one is wanted.
        3. It is not wanted: nothing follows.
        4. It died: restart with back-off, or FAILED (unfit: at once) with the reason kept.
        """
        rings.tell_gone(child, self._peers(child), self._effects)  # 1
        if child.state == DRAINING or not child.wanted:
            child.forget_process()
            self._move(child, STOPPED)
            if child.wanted and not self.is_stopping:  # 2
                self._spawn(child, now)
            elif not self._is_planned(child):  # 3
                del self.children[child.key]
        else:  # 4
            former = child.state
            child.reason = child.reason or reason
            child.die(now, self._config.timeouts.start_s, is_unfit)
            self._effects.record(child, former)
        self._effects.publish()
        self._go_on_stopping(now)

    def on_timer(self, now: float) -> None:
        """Carry out what is due. By state:

        1. BACKOFF: start again.
        2. DRAINING: SIGTERM, later SIGKILL.
        3. Adopted and silent: as if it had not finished draining.
        4. Not loaded in time: kill; that is a failed start.
        """
        for child in [c for c in self.children.values() if c.act_at <= now]:
            child.act_at = math.inf
            if not child.is_alive:  # 1
                self._spawn(child, now)
            elif child.state == DRAINING:  # 2
                self._escalate(child, now)
            elif child.adopting:  # 3
                child.reason = "it did not answer to the new controller"
                self._move(child, DRAINING)
                self._escalate(child, now)
            else:  # 4
                child.reason = f"not ready within {self._config.timeouts.load_s:g} s"
                self._effects.kill(child, True)

    @property
    def next_deadline(self) -> float:
        return min((child.act_at for child in self.children.values()), default=math.inf)

    # --- the operator ---

    def stop_instance(self, child: Child, force: bool, timeout_s: float | None, now: float) -> None:
        """Drain it and do not start it again."""
        child.wanted = False
        child.reason = "stopped by the operator"
        self._stop(child, now, self._drain_s if timeout_s is None else timeout_s, force=force)

    def shut_down(self, force: bool, now: float) -> None:
        """End all: Routers first, so that what is open is finished; with `force` at once."""
        self.is_stopping = True
        for child in list(self.children.values()):
            child.wanted = False
            if force or child.role == ROUTER or not child.is_alive:
                self._stop(child, now, self._drain_s, force=force)
        self._go_on_stopping(now)

    @property
    def is_stopped(self) -> bool:
        return self.is_stopping and not any(child.is_alive for child in self.children.values())

    @property
    def is_settled(self) -> bool:
        """Nothing wanted is on its way any more."""
        return all(c.is_settled for c in self.children.values() if c.wanted)

    # --- what Routers and operators are told ---

    def replicas(self, model: Model) -> list[Child]:
        return [c for c in self.workers() if c.model == model.index]

    def replicas_by_model(self) -> dict[int, list[Child]]:
        """By the model's index; linear, where asking for each model would not be."""
        replicas: dict[int, list[Child]] = {model.index: [] for model in self.registry}
        for child in self.workers():
            if child.model in replicas:
                replicas[child.model].append(child)
        return replicas

    def workers(self) -> Iterable[Child]:
        return (child for child in self.children.values() if child.role == WORKER)

    def routers(self) -> Iterable[Child]:
        return (child for child in self.children.values() if child.role == ROUTER)

    def find_instance(self, name: str) -> Child:
        """Raises ControlError for an unknown one."""
        for child in self.workers():
            if child.name == name:
                return child
        raise ControlError(f"no instance named {name}")

    def state_of(self, replicas: list[Child]) -> tuple[str, str]:
        """(state, reason) of a model by its replicas: the reason is empty when it is ready."""
        state = model_state(replicas)
        if state == "ready":
            return state, ""
        reason = next((child.reason for child in replicas if child.reason), "")
        return state, reason or ("not started" if state == "stopped" else "")

    def registry_message(self) -> Registry:
        """All models and living Workers. Linear in both."""
        replicas = self.replicas_by_model()
        weights = {model.index: model.config.deployment.weight for model in self.registry}
        limits = self._config.limits
        models = [m.entry(*self.state_of(replicas[m.index]), limits) for m in self.registry]
        workers = [
            WorkerEntry(c.id, c.incarnation, c.model, c.name, weights[c.model], c.state != DRAINING)
            for group in replicas.values()
            for c in group
            if c.is_alive
        ]
        return Registry(self.registry.changed(), models, workers, self.is_settled)

    # --- inside: one child ---

    @property
    def _drain_s(self) -> float:
        return self._config.timeouts.drain_s

    def _load_deadline(self, now: float) -> float:
        return now + (self._config.timeouts.load_s or math.inf)

    def _move(self, child: Child, state: str) -> None:
        former = child.state
        child.move(state)
        self._effects.record(child, former)

    def _spawn(self, child: Child, now: float) -> None:
        former, child.reason = child.state, ""
        child.begin()
        child.act_at = self._load_deadline(now)
        self._effects.record(child, former)
        try:
            child.pid = self._effects.spawn(child)
        except (OSError, CannotStart) as error:
            is_unfit = isinstance(error, CannotStart)
            child.reason = str(error) if is_unfit else f"cannot be started: {error}"
            child.die(now, self._config.timeouts.start_s, is_unfit)
            self._effects.record(child, STARTING)
        self._effects.publish()

    def _follow(self, child: Child, told: str, reason: str, now: float) -> None:
        """Take over the state that a child tells of itself; what it tells late changes nothing."""
        if told == "failed" and reason:
            child.reason = reason  # it exits by itself
        if told == LOADING and child.state == STARTING:
            deadline = child.act_at
            self._move(child, LOADING)
            child.act_at = deadline
        elif told == READY and child.state in (STARTING, LOADING):
            child.ready_at, child.reason = now, ""
            self._move(child, READY)
            adapters.on_ready(self._model_of(child), child, self._effects.send)
        elif told == DRAINING and child.state in (STARTING, LOADING, READY):
            self._move(child, DRAINING)
            child.act_at = now + self._drain_s + DRAIN_MARGIN_S
        else:
            return
        self._effects.publish()

    def _stop(
        self, child: Child, now: float, timeout_s: float, force: bool = False, drains: bool = False
    ) -> None:
        """End a process, or the wait for its next start.

        1. It does not run: only its state changes.
        2. By force, or it has nothing to finish yet: SIGKILL.
        3. It cannot be told (no connection): SIGTERM, later SIGKILL.
        4. Else Drain, and signals when that takes too long.
        """
        has_work = drains or child.adopting or child.state in (READY, DRAINING)
        if not child.is_alive:  # 1
            if child.state != STOPPED:
                self._move(child, STOPPED)
        else:
            if child.state != DRAINING:
                self._move(child, DRAINING)
            if force or not has_work:  # 2
                self._effects.kill(child, True)
            elif not child.connected:  # 3
                self._escalate(child, now)
            else:  # 4
                self._effects.send(child, Drain(timeout_s))
                child.act_at = now + timeout_s + DRAIN_MARGIN_S
        self._effects.publish()

    def _escalate(self, child: Child, now: float) -> None:
        self._effects.kill(child, child.kills > 0)
        child.kills += 1
        child.act_at = now + TERM_WAIT_S

    def _go_on_stopping(self, now: float) -> None:
        """Once no Router is left, Workers have nothing to finish for anyone."""
        if not self.is_stopping or any(child.is_alive for child in self.routers()):
            return
        for child in list(self.workers()):
            if child.is_alive and child.state != DRAINING:
                self._stop(child, now, self._drain_s)

    def _is_planned(self, child: Child) -> bool:
        return child.role == ROUTER or child.model >= 0

    def _model_of(self, child: Child) -> Model | None:
        return next((m for m in self.registry if m.index == child.model), None)

    def _peers(self, child: Child) -> list[Child]:
        return list(self.workers() if child.role == ROUTER else self.routers())

    def _connect(self, a: Child, b: Child, is_new: bool) -> None:
        worker, router = (a, b) if a.role == WORKER else (b, a)
        if rings.connect(worker, router, is_new, self._config.server.routers, self._effects):
            self._effects.publish()
