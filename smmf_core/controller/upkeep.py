"""Once a second: who is unwell and what is done about it, and how many replicas a model needs.

Pure. Carries out the verdicts of `health` and `autoscale`, each of which only judges. Owns their
state per replica and model, and the alerts that hold; never removes the last one in rotation.
"""

from __future__ import annotations

from smmf_core.config import ServerConfig
from smmf_core.control_messages import Probe, WorkerReport
from smmf_core.controller import health
from smmf_core.controller.autoscale import Autoscaler, Load
from smmf_core.controller.health import InstanceHealth, QueueHealth, Verdict
from smmf_core.controller.lives import Effects, Lives
from smmf_core.controller.reconcile import PATIENT_S, Reconciler
from smmf_core.controller.table import Table
from smmf_core.lifecycle import DRAINING, FAILED, READY, Child
from smmf_core.registry import LiveRegistry, Model

Life = tuple[int, int]  # (Worker, incarnation)


class Upkeep:
    """Of all replicas and models."""

    def __init__(
        self,
        config: ServerConfig,
        registry: LiveRegistry,
        table: Table,
        lives: Lives,
        models: Reconciler,
        effects: Effects,
    ) -> None:
        self.config = config
        self._registry = registry
        self._table = table
        self._lives = lives
        self._models = models
        self._effects = effects
        self._healths: dict[str, tuple[Life, InstanceHealth]] = {}
        self._queues: dict[int, QueueHealth] = {}
        self._scalers: dict[int, tuple[tuple[int, int], Autoscaler]] = {}
        self._serial = 0

    # --- what is told ---

    def on_report(self, child: Child, report: WorkerReport, now: float) -> None:
        self._health(child).on_report(report, now)
        self._health(child).on_heartbeat(now)

    def on_heartbeat(self, child: Child, now: float) -> None:
        self._health(child).on_heartbeat(now)

    def on_probed(self, child: Child, is_ok: bool, seconds: float) -> None:
        self._health(child).on_probed(is_ok, seconds)

    def on_memory(self, child: Child, used_bytes: int, allowed_bytes: int) -> None:
        """`allowed_bytes` 0: it may take what it likes."""
        child.measured_bytes = used_bytes
        self._health(child).on_memory(used_bytes, allowed_bytes)

    def set_limits(self) -> None:
        """`[health]` has changed: everybody is judged anew."""
        self._healths.clear()
        self._queues.clear()

    def alerts(self, name: str) -> dict[str, str]:
        """Of a replica, by its name: what it is over, with the reason."""
        found = self._healths.get(name)
        return found[1].crossed if found is not None else {}

    def queue_alerts(self, model: Model) -> dict[str, str]:
        found = self._queues.get(model.index)
        return found.crossed if found is not None else {}

    # --- what follows ---

    def tick(self, now: float) -> None:
        self._forget()
        in_flight = self._table.in_flight()
        for child in list(self._table.workers()):
            if child.state == DRAINING:
                self._judge_leaving(child, now)
            elif child.is_alive:
                self._judge(child, child.id in in_flight, now)
        for model in list(self._registry):
            if model.is_wanted and not (model.is_stopped or model.is_removed):
                self._judge_queue(model, now)
                is_at_rest = model.is_scaled and not model.target  # the operator's word: none
                if model.config.deployment.is_autoscaled and not is_at_rest:
                    self._scale(model, now)

    def _forget(self) -> None:
        """Replicas and models that are no more."""
        for name in self._healths.keys() - {child.name for child in self._table.workers()}:
            del self._healths[name]
        for kept in (self._queues, self._scalers):
            for index in [index for index in kept if self._registry.by_index(index) is None]:
                del kept[index]

    def _judge(self, child: Child, is_busy: bool, now: float) -> None:
        own = self._health(child)
        is_ready = child.state == READY and not child.adopting
        verdicts = own.judge(is_ready, bool(child.removed), now, self._may_restart(child))
        if is_ready and (why := self._hangs(child, is_busy, now)):
            verdicts.append(Verdict(health.RESTART, health.HANG, why))
        if not any(verdict.kind == health.REMOVE for verdict in verdicts):
            self._set_unwell(child, "")
        for verdict in verdicts:
            self._carry_out(verdict, child, now)
        if child.removed and child.state == READY and own.wants_probe(now):
            self._serial += 1
            self._effects.send(child, Probe(self._serial))

    def _judge_leaving(self, child: Child, now: float) -> None:
        """It is to end by itself: by signals when it beats no more, or does not even listen."""
        why = self._health(child).lost_beat(now) or self._hangs(child, True, now)
        if why and not child.kills:
            self._effects.note("alert", child.name, f"ended by signals: {why}")
            self._lives.escalate(child, now)

    def _hangs(self, child: Child, has_work: bool, now: float) -> str:
        """Why it is taken for hung; "": it is not."""
        timeouts = self.config.timeouts
        answer_s = max(timeouts.first_token_s, timeouts.inference_s)
        return self._health(child).pulse.judge(has_work, timeouts.hang_s, answer_s, now)

    def _may_restart(self, child: Child) -> bool:
        """Whether its restart leaves another one in rotation, where there are several."""
        others = [c for c in self._table.replicas(child.model) if c.wanted and c is not child]
        return not child.is_online or not others or any(c.is_online for c in others)

    def _judge_queue(self, model: Model, now: float) -> None:
        queue = self._queues.get(model.index)
        if queue is None:
            queue = self._queues[model.index] = QueueHealth(self.config.health)
        for verdict in queue.judge(model.waiting, now):
            if verdict.kind in (health.ALERT, health.CLEAR):
                self._effects.note("alert", model.name, verdict.reason)
                continue
            online = [c for c in self._table.replicas(model.index) if c.is_online]
            if online:
                names = {child.name: self._health(child) for child in online}
                self._carry_out(verdict, self._table.find(health.slowest(names)), now)

    def _carry_out(self, verdict: Verdict, child: Child, now: float) -> None:
        """1. ALERT, CLEAR: only told.
        2. REMOVE: out of rotation, unless it is the last one there.
        3. RETURN: back into it.
        4. RESTART: drained, then replaced; one that does not beat, or hangs, is ended by signals.
           Else it waits until another one is in rotation.
        """
        is_lost = verdict.cause in (health.HEARTBEAT, health.HANG)
        if verdict.kind in (health.ALERT, health.CLEAR):  # 1
            self._effects.note("alert", child.name, verdict.reason)
        elif child.state != READY:
            return  # it is on its way out already
        elif verdict.kind == health.REMOVE:  # 2
            self._remove(child, verdict.reason, now)
        elif verdict.kind == health.RETURN:  # 3
            child.removed = ""
            self._tell(child, f"returned to rotation: {verdict.reason}", now)
        elif is_lost or self._may_restart(child):  # 4
            child.total_restarts += 1
            child.reason = f"restarted: {verdict.reason}"
            self._effects.note("alert", child.name, child.reason)
            if is_lost:
                self._lives.move(child, DRAINING)
                self._lives.escalate(child, now)
            else:
                self._lives.stop(child, now, PATIENT_S)
            self._reconcile(child, now)

    def _remove(self, child: Child, reason: str, now: float) -> None:
        if child.removed:
            return
        replicas = self._table.replicas(child.model)
        if any(other.is_online for other in replicas if other is not child):
            child.removed = reason
            self._tell(child, f"removed from rotation: {reason}", now)
        else:
            self._set_unwell(child, reason)

    def _set_unwell(self, child: Child, reason: str) -> None:
        if bool(child.unwell) != bool(reason):
            self._effects.publish()
        child.unwell = reason

    def _tell(self, child: Child, text: str, now: float) -> None:
        self._effects.note("alert", child.name, text)
        self._effects.publish()
        self._reconcile(child, now)

    def _reconcile(self, child: Child, now: float) -> None:
        model = self._registry.by_index(child.model)
        if model is not None:
            self._models.reconcile(model, now)

    def _health(self, child: Child) -> InstanceHealth:
        """Of the slot; a new process begins with a clean sheet."""
        life = child.id, child.incarnation
        found = self._healths.get(child.name)
        if found is None:
            found = self._healths[child.name] = life, InstanceHealth(self.config.health)
        elif found[0] != life:
            found[1].begin()
            found = self._healths[child.name] = life, found[1]
        return found[1]

    def _scale(self, model: Model, now: float) -> None:
        deployment = model.config.deployment
        bounds = deployment.min_replicas or 0, deployment.max_replicas or 1
        kept = self._scalers.get(model.index)
        if kept is None or kept[0] != bounds:
            kept = self._scalers[model.index] = bounds, Autoscaler(*bounds)
        wanted = [c for c in self._table.replicas(model.index) if c.wanted and c.state != FAILED]
        waits = [load.oldest_wait_s for load in model.loads.values() if load.waiting]
        load = Load(
            waiting=model.waiting,
            running=model.running,
            oldest_wait_s=max(waits, default=0.0),
            slots=deployment.max_concurrency,
            replicas=len(wanted),
            ready=sum(child.is_online for child in wanted),
        )
        count = kept[1].wanted(load, now)
        if count and count != model.target and model.former is None:
            text = f"scaled from {model.target} to {count} replicas by its load"
            model.target, model.is_scaled = count, False
            self._effects.note("model", model.name, text)
            self._models.reconcile(model, now)
