"""What the Controller decides: which processes to start, adopt, connect, drain, kill, restart.

Pure: time is a parameter, acts go through Effects. Owns the state of every child and the wishes for
every model; must not know sockets, descriptors or files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from smmf_core.config import ServerConfig
from smmf_core.control_messages import (
    Hello,
    Registry,
    RouterReport,
    WorkerLost,
    WorkerReport,
)
from smmf_core.controller import adapters, demand, rings, status
from smmf_core.controller.lives import Effects, Lives
from smmf_core.controller.reconcile import Reconciler, is_out_of_memory
from smmf_core.controller.room import Room
from smmf_core.controller.table import ROUTER, WORKER, Key, Table
from smmf_core.controller.upkeep import Upkeep
from smmf_core.controller.verbs import Verbs
from smmf_core.lifecycle import (
    BACKOFF,
    DRAINING,
    FAILED,
    READY,
    STARTING,
    STOPPED,
    Child,
    Status,
)
from smmf_core.messages import PROTOCOL
from smmf_core.registry import LiveRegistry, Model

ADOPT_S = 5.0  # children look for a Controller every 0.2 s; one in a long engine step is later
MAX_LOSSES = 3  # new rings for a Worker that a Router cannot reach; then it is restarted
UPDATED = "smmf was updated under the running server: restart it"
ANOTHER = -1  # generation of what runs another config than the present one


class ControllerCore(Verbs):
    """The Controller's decisions. The shell calls the `on_x` events, `on_timer` at
    `next_deadline`, and `on_tick` once a second."""

    def __init__(self, config: ServerConfig, registry: LiveRegistry, effects: Effects) -> None:
        self._config = config
        self._effects = effects
        self.unix_offset_s = 0.0
        self.is_complete = True  # False: what a former run left has not been read yet
        self.registry = registry
        self.table = Table()
        self.children = self.table.children
        self.room = Room(config, registry, self.table)
        self.lives = Lives(config, effects)
        self.models = Reconciler(registry, self.table, self.lives, self.room, effects)
        self.upkeep = Upkeep(config, registry, self.table, self.lives, self.models, effects)

    # --- what should run ---

    def plan(self, worker_ids: dict[str, int]) -> None:
        """Make a slot per Router. `worker_ids` are those of a former Controller."""
        for router in range(self._config.server.routers):
            self.table.add(Child(ROUTER, router, f"router-{router}"))
        self.table.remember_ids(worker_ids)

    def adopt(self, key: Key, name: str, incarnation: int, pid: int, now: float) -> None:
        """A former Controller's process; pid 0: it is gone, only its incarnation counts.

        A replica is wanted while its model has fewer than it should; a stranger is not.
        """
        model = self.registry.named(name.rpartition("-")[0]) if key[0] == WORKER else None
        child = self.children.get(key)
        if child is None or child.name != name:
            if not pid and model is None:
                return
            index = model.index if model is not None else -1
            child = self.table.add(Child(*key, name, index, wanted=False))
        child.incarnation = incarnation
        if not pid:
            return
        if model is not None:
            wanted = sum(other.wanted for other in self.replicas(model))
            child.wanted = wanted < model.desired
            child.generation = model.generation
            child.slots = model.config.deployment.max_concurrency
        child.state, child.pid, child.adopting = STARTING, pid, True
        child.act_at = now + ADOPT_S
        self._effects.record(child, STOPPED)

    def start(self, now: float) -> None:
        """Spawn what is wanted and was not adopted; Routers first: they are waited for."""
        for router in self.routers():
            if router.state == STOPPED and router.wanted:
                self.lives.spawn(router, now)
        for model in self.registry:
            model.last_used = now
            self.models.reconcile(model, now)

    # --- events ---

    def on_hello(self, child: Child, hello: Hello, spec_hash: str, now: float) -> None:
        """A child connected, for the first time or again; the shell has checked who it is.

        1. It was just started, and speaks another protocol: so will the next one.
        2. It speaks another protocol, or runs what is no longer wanted: drain; its successor
           starts when it has ended. What drains already may not have heard of it.
        3. A replica with another config is of a former generation: it is replaced in turn.
        4. It is welcome, and told whom it is connected with.
        """
        child.connected = True
        was_adopting, child.adopting = child.adopting, False
        child.rings = set(hello.attached)
        model = self._model_of(child)
        is_other = hello.spec_hash not in ("", spec_hash)
        is_foreign = hello.protocol != PROTOCOL
        if is_foreign and child.state == STARTING and child.wanted and not was_adopting:  # 1
            self.lives.refuse(child, UPDATED)
            return
        is_unfit = is_foreign or (is_other and model is None)
        if is_unfit or not child.wanted or child.state == DRAINING:  # 2
            if child.state == STARTING:
                self.lives.stop(child, now, self._drain_s, drains=True)
            elif child.state == DRAINING:
                self.lives.remind(child, now)
            return
        if is_other:  # 3
            child.generation = ANOTHER
        self._effects.welcome(child)  # 4
        adapters.on_welcome(model, child, self._effects.send)
        if was_adopting:
            child.act_at = self.lives.load_deadline(now)
        self._follow(child, hello.state, "", now)
        peers = self._peers(child)
        rings.drop_stale(child, peers, self._effects)
        for peer in peers:
            self._connect(child, peer, is_new=not hello.spec_hash)
        self._effects.publish()
        if model is not None:
            self.models.reconcile(model, now)

    def on_disconnect(self, child: Child) -> None:
        """It reconnects by itself if it lives; its pidfd tells if not."""
        child.connected = False

    def on_heartbeat(self, child: Child, now: float) -> None:
        self.upkeep.on_heartbeat(child, now)

    def on_worker_report(self, child: Child, report: WorkerReport, now: float) -> None:
        child.observe(report, now)
        self.upkeep.on_report(child, report, now)
        model = self._model_of(child)
        if model is not None and self._learn(model, report):
            self._effects.publish()
        self._follow(child, report.state, report.reason, now)
        self.lives.advance(child, report, now)
        if model is not None and child.state == READY:
            replicas = self.replicas(model)
            if adapters.on_report(model, report, replicas, self._effects.send):
                self._effects.publish()

    def on_router_report(self, child: Child, report: RouterReport, now: float) -> None:
        child.observe(report, now)
        self._follow(child, report.state, "", now)
        turned = demand.on_router_report(self.registry, child.id, report, now)
        for model in turned:
            self._unload_if_idle(model, now)
        if turned:
            self.models.retry_waiting(now)

    def on_load_wanted(self, index: int, now: float) -> None:
        """Requests wait in a Router for a model that nobody loads."""
        model = self.registry.by_index(index)
        if model is not None:
            self.want_loaded(model, now)

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

        1. Its peers forget it, and its memory is free.
        2. It had been told to end, or is not wanted.
        3. It died: restart with back-off, or FAILED (unfit: at once) with the reason kept.
        4. It was a Router: another one starts if one is wanted.
        5. Its model has what is wanted of it, and what waits for memory asks again.
        """
        rings.tell_gone(child, self._peers(child), self._effects)  # 1
        self.room.ended(child, now)
        if child.state == DRAINING or not child.wanted:  # 2
            child.forget_process()
            self.lives.move(child, STOPPED)
        else:  # 3
            self._die(child, reason, now, is_unfit or child.is_unfit)
        self._effects.publish()
        model = self._model_of(child)
        if child.role == ROUTER:  # 4
            demand.forget_router(self.registry, child.id)
            if child.state == STOPPED and child.wanted and not self.is_stopping:
                self.lives.spawn(child, now)
        elif model is None and child.state == STOPPED:
            self.table.forget(child)
        elif model is not None:  # 5
            self.models.retry_waiting(now)
            self.models.reconcile(model, now)
        self._go_on_stopping(now)

    def on_timer(self, now: float) -> None:
        """Carry out what is due. By state:

        1. BACKOFF: start again.
        2. FAILED: a request may load it again.
        3. DRAINING: SIGTERM, later SIGKILL.
        4. Adopted and silent: as if it had not finished draining.
        5. Not loaded in time: kill; that is a failed start.
        """
        for child in [c for c in self.children.values() if c.act_at <= now]:
            if child.act_at > now:
                continue  # what was done for another one has changed it
            child.act_at = math.inf
            model = self._model_of(child)
            if child.state == BACKOFF and model is not None:  # 1
                self.models.start(child, now)
                self.models.reconcile(model, now)
            elif child.state == BACKOFF:
                self.lives.spawn(child, now)
            elif child.state == FAILED:  # 2
                self._forgive(model, now)
            elif child.state == DRAINING:  # 3
                self.lives.escalate(child, now)
            elif child.adopting:  # 4
                self.lives.give_up(child, now)
            else:  # 5
                self.lives.too_late(child)

    def on_tick(self, now: float) -> None:
        """Once a second: what no event tells of."""
        self.upkeep.tick(now)
        for model in list(self.registry):
            self._unload_if_idle(model, now)
        self.models.retry_waiting(now)
        if any(status.retry_in([child], now) for child in self.workers()):
            self._effects.publish()  # how long it still takes
        for model in self.registry:
            if told := status.loading(model, self.replicas(model), now):
                for router in self.routers():
                    self._effects.send(router, told)

    def on_memory(self, free: dict[str, int], now: float) -> None:
        """What is really free on each device, as just measured."""
        self.room.free = free
        self.models.retry_waiting(now)

    def complete(self) -> None:
        """What a former run left has been read."""
        self.is_complete = True
        self._effects.publish()

    @property
    def next_deadline(self) -> float:
        return min((child.act_at for child in self.children.values()), default=math.inf)

    # --- the whole server ---

    def shut_down(self, force: bool, now: float) -> None:
        """End all: Routers first, so that what is open is finished; with `force` at once."""
        self.models.is_stopping = True
        for child in list(self.children.values()):
            child.wanted = False
            if force or child.role == ROUTER or not child.is_alive:
                self.lives.stop(child, now, self._drain_s, force=force)
        self._go_on_stopping(now)

    @property
    def is_stopping(self) -> bool:
        return self.models.is_stopping

    @property
    def is_stopped(self) -> bool:
        return self.is_stopping and not any(child.is_alive for child in self.children.values())

    @property
    def is_settled(self) -> bool:
        """Nothing wanted is on its way any more."""
        return self.is_complete and all(c.is_settled for c in self.children.values() if c.wanted)

    # --- what Routers and operators are told ---

    def replicas(self, model: Model) -> list[Child]:
        return self.table.replicas(model.index)

    def workers(self) -> Iterable[Child]:
        return self.table.workers()

    def routers(self) -> Iterable[Child]:
        return self.table.routers()

    def find_instance(self, name: str) -> Child:
        """Raises ControlError for an unknown one."""
        return self.table.find(name)

    @property
    def budgets(self) -> dict[str, int]:
        return self.room.budgets

    def status_of(self, model: Model) -> Status:
        """What there is to say of a model in one line."""
        return status.status_of(model, self.replicas(model))

    def has_reached(self, model: Model) -> bool:
        """It is what is wanted of it, or will not be without help: `status_of` tells why."""
        return status.has_reached(model, self.replicas(model))

    def registry_message(self, now: float) -> Registry:
        """All models and living Workers. Linear in both."""
        return status.registry_message(
            self.registry, self.table, self._config.limits, self.is_settled, self.room.need, now
        )

    # --- inside ---

    @property
    def _drain_s(self) -> float:
        return self._config.timeouts.drain_s

    def _follow(self, child: Child, told: str, reason: str, now: float) -> None:
        former = child.state
        self.lives.follow(child, told, reason, now)
        model = self._model_of(child)
        if child.state == former or model is None:
            return
        if child.state == READY:
            model.last_used = max(model.last_used, now)
            if child.load_s:
                model.load_s = child.load_s
                self.models.changed.add(model.index)
        self.models.reconcile(model, now)

    def _learn(self, model: Model, report: WorkerReport) -> bool:
        """What a loaded replica tells of its model; whether Routers must know."""
        facts = (report.context_length, report.capabilities, report.dimensions)
        if facts[0] + facts[2] == 0:
            return False
        if facts == (model.context_length, model.capabilities, model.dimensions):
            return False
        model.context_length, model.capabilities, model.dimensions = facts
        self.models.changed.add(model.index)
        return True

    def _die(self, child: Child, reason: str, now: float, is_unfit: bool) -> None:
        was_ready = child.ready_at is not None
        child.reason = child.reason or reason
        self.lives.die(child, now, is_unfit)
        if child.role == WORKER and not was_ready and is_out_of_memory(child.reason):
            self.models.run_out(child, now)

    def _forgive(self, model: Model | None, now: float) -> None:
        """A model that was loaded on demand failed a while ago."""
        if model is not None and not any(c.is_shown for c in self.replicas(model)):
            self.models.unload(model, "its load failed", now)

    def _unload_if_idle(self, model: Model, now: float) -> None:
        if demand.is_idle_for_long(model, self.replicas(model), now):
            self.models.unload(model, f"not used for {model.idle_s:g} s", now)

    def _go_on_stopping(self, now: float) -> None:
        """Once no Router is left, Workers have nothing to finish for anyone."""
        if not self.is_stopping or any(child.is_alive for child in self.routers()):
            return
        for child in list(self.workers()):
            if child.is_alive and child.state != DRAINING:
                self.lives.stop(child, now, self._drain_s)

    def _model_of(self, child: Child) -> Model | None:
        return self.registry.by_index(child.model) if child.role == WORKER else None

    def _peers(self, child: Child) -> list[Child]:
        return list(self.workers() if child.role == ROUTER else self.routers())

    def _connect(self, a: Child, b: Child, is_new: bool) -> None:
        worker, router = (a, b) if a.role == WORKER else (b, a)
        if rings.connect(worker, router, is_new, self._config.server.routers, self._effects):
            self._effects.publish()
