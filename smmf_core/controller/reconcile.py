"""Brings each model to what is wanted of it: carries out `rollout.next_act` until nothing is left.

Pure: acts go through Lives. Owns the wait for memory and who makes room; must not know why a model
is wanted.
"""

from __future__ import annotations

import math

from smmf_core.controller import rollout, swap
from smmf_core.controller.lives import Effects, Lives
from smmf_core.controller.room import Room, devices_of
from smmf_core.controller.table import Table
from smmf_core.lifecycle import (
    FAILED,
    OUT_OF_MEMORY,
    READY,
    STOPPED,
    WAITING,
    Child,
    backoff_s,
)
from smmf_core.registry import LiveRegistry, Model

KNOBS = "[deployment] memory_gib, [memory] budget_gib"
PATIENT_S = 600.0  # what nobody asked to end may finish its requests for so long


class Reconciler:
    """`reconcile` after every change of a model or of one of its children."""

    def __init__(
        self, registry: LiveRegistry, table: Table, lives: Lives, room: Room, effects: Effects
    ) -> None:
        self._registry = registry
        self._table = table
        self._lives = lives
        self._room = room
        self._effects = effects
        self.is_stopping = False  # the whole server: nothing starts any more
        self.changed: set[int] = set()  # models of which something is to be remembered

    def reconcile(self, model: Model, now: float) -> None:
        """Only this model is looked at, and those that make room for it."""
        if self.is_stopping:
            return
        slots = self._table.replicas(model.index)
        while act := rollout.next_act(model, slots, lambda: self._room.has_room(model, now)):
            self._carry_out(act, model, now)
        self._look_at_end(model, slots, now)
        if model.is_removed and not any(child.is_alive for child in slots):
            self._forget(model)

    def retry_waiting(self, now: float) -> None:
        """Something may have become free: those that wait for memory ask again."""
        self._retry_refused(now)
        if not self._room.waiting:
            return
        for child in self._room.next_waiting(now):
            model = self._registry.by_index(child.model)
            if child.state == WAITING and model is not None:
                self._start(child, model, now)
                self.reconcile(model, now)

    def start(self, child: Child, now: float) -> None:
        """Start a replica of a registered model that does not run, if there is memory for it."""
        model = self._registry.by_index(child.model)
        if model is not None and not self.is_stopping:
            self._start(child, model, now)

    def run_out(self, child: Child, now: float) -> None:
        """Its load ended for want of memory: once again when everything idle has gone."""
        if child.needs_room:
            reason = f"{child.reason}, with everything idle unloaded: see {KNOBS}"
            child.needs_room = False
            if child.state != FAILED:
                self._lives.fail(child, reason)
            child.reason = reason
        elif child.state != FAILED:
            child.needs_room, child.act_at = True, now

    def unload(self, model: Model, why: str, now: float) -> None:
        """Out of memory, but not out of service: the next request loads it again."""
        if not model.is_wanted:
            return
        model.is_wanted = model.is_asked = False
        model.keep_alive_s = None  # what a request said of this load is no word on the next
        self._effects.note("model", model.name, f"unloaded: {why}")
        self.changed.add(model.index)
        self.reconcile(model, now)

    # --- inside ---

    def _retry_refused(self, now: float) -> None:
        """What no device could take is tried again once one could: `[memory]` has changed."""
        for child in [c for c in self._table.workers() if c.is_refused]:
            model = self._registry.by_index(child.model)
            if model is None or isinstance(self._room.ask(child, model, now), swap.Never):
                continue
            self._lives.move(child, STOPPED)
            self.reconcile(model, now)

    def _carry_out(self, act: rollout.Act, model: Model, now: float) -> None:
        child = act.child
        if child is None:
            if act.kind == rollout.MORE:
                self._table.free_slot(model).wanted = True
            else:
                self._roll_back(model, now)
        elif act.kind == rollout.START:
            self._start(child, model, now)
        elif act.kind == rollout.RENEW:
            self._lives.stop(child, now, PATIENT_S)
        elif act.kind == rollout.RETURN:
            child.unwell, child.removed = child.removed, ""
            self._effects.note("alert", child.name, f"back in rotation, the last: {child.unwell}")
            self._effects.publish()
        else:
            self._retire(child, model, now)

    def _retire(self, child: Child, model: Model, now: float) -> None:
        is_ordered = model.is_stopped or model.is_removed
        child.wanted = child.is_offline = False  # the operator's word was on this one
        self._room.waiting.pop(child.id, None)
        self._lives.stop(child, now, None if is_ordered else PATIENT_S)
        if not child.is_alive:
            child.pardon()

    def _start(self, child: Child, model: Model, now: float) -> None:
        """Spawn it, or have it wait for memory.

        1. Its last load ran out of memory: everything idle on its device goes first.
        2. It fits: spawn.
        3. Others make room: drain them, wait.
        4. It must wait.
        5. It will never fit, as devices are: failed, with the reason.
        """
        if child.needs_room and (idle := self._room.all_idle(child)):  # 1
            self._wait(child, devices_of(child), "everything idle is unloaded first", now)
            self._evict(idle, f"{child.name} ran out of memory", now)
            return
        answer = self._room.ask(child, model, now)
        if isinstance(answer, swap.Fits):  # 2
            self._room.waiting.pop(child.id, None)
            self._place(child, model, answer.devices)
            child.generation = model.generation
            child.slots = model.config.deployment.max_concurrency
            self._lives.spawn(child, now)
        elif isinstance(answer, swap.Evict):  # 3
            reason = f"waits for {', '.join(answer.instances)} to unload"
            self._wait(child, answer.devices, reason, now)
            self._place(child, model, answer.devices)
            self._evict(answer.instances, answer.reason, now)
        elif isinstance(answer, swap.Wait):  # 4
            self._wait(child, answer.devices, answer.reason, now, answer.is_final)
            self._place(child, model, answer.devices)
        else:  # 5
            self._room.waiting.pop(child.id, None)
            self._lives.fail(child, answer.reason)
            child.is_refused, model.is_asked = True, False

    def _place(self, child: Child, model: Model, devices: tuple[str, ...]) -> None:
        child.device = ",".join(devices)
        child.need_bytes = self._room.need(model)

    def _wait(
        self,
        child: Child,
        devices: tuple[str, ...],
        reason: str,
        now: float,
        is_final: bool = False,
    ) -> None:
        self._lives.wait(child, now)
        child.is_stuck = not devices
        child.is_blocked = is_final or now >= self._lives.load_deadline(child.started_at)
        self._room.waiting[child.id] = child
        if child.reason != reason:
            child.reason = reason
            self._effects.publish()

    def _evict(self, instances: tuple[str, ...], why: str, now: float) -> None:
        """Drain them without a time limit. A model all of whose replicas go is unloaded; one that
        keeps some has the others again when there is memory."""
        gone = set(instances)
        for name in instances:
            child = self._table.find(name)
            model = self._registry.by_index(child.model)
            replicas = self._table.replicas(child.model)
            others = [c for c in replicas if c.is_alive and c.name not in gone]
            if model is None or others:
                self._lives.stop(child, now, PATIENT_S)
            else:
                self.unload(model, f"{child.name}: {why}", now)

    def _roll_back(self, model: Model, now: float) -> None:
        """The new generation cannot start: the former one goes on, with the reason."""
        assert model.former is not None
        slots = self._table.replicas(model.index)
        reasons = [c.reason for c in slots if rollout.is_hopeless(c)]
        config, generation = model.former
        model.former = None
        if config is not model.config:
            self._registry.replace(model, config)
        model.generation = generation
        model.reason = f"the change could not be made: {reasons[0] if reasons else 'unknown'}"
        for child in slots:
            if child.wanted and rollout.is_hopeless(child):
                child.wanted = False
                self._room.waiting.pop(child.id, None)
                child.pardon()
                self._lives.move(child, STOPPED)
        self._effects.note("model", model.name, model.reason)
        self.changed.add(model.index)

    def _look_at_end(self, model: Model, slots: list[Child], now: float) -> None:
        """What was asked for is reached, or a replacement is complete; or it failed: a model that
        a request loaded may be asked for again after a while."""
        wanted = [child for child in slots if child.wanted]
        on_demand = model.is_on_demand or not model.config.deployment.autostart
        for child in wanted:
            if on_demand and child.state == FAILED and child.act_at == math.inf:
                child.act_at = now + backoff_s(max(1, child.restarts))
        if any(child.state != READY for child in wanted):
            return
        model.is_asked = False
        is_renewed = wanted and not any(rollout.is_old(model, child) for child in wanted)
        if is_renewed and model.former is not None:
            model.former, model.reason = None, ""

    def _forget(self, model: Model) -> None:
        for child in list(self._table.replicas(model.index)):
            self._room.waiting.pop(child.id, None)
            self._table.forget(child)
        if self._registry.by_index(model.index) is model:
            self._registry.remove(model)
        self.changed.add(model.index)
        self._effects.note("model", model.name, "removed")
        self._effects.publish()


def is_out_of_memory(reason: str) -> bool:
    return reason.lower().startswith(OUT_OF_MEMORY)
