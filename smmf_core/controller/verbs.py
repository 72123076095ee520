"""The operator's words: start, stop, restart, scale, offline, pin, add, remove, replace, alias.

Pure. Each sets what is wanted and has it reconciled; said twice it changes nothing more. Owns what
a word means for the wishes; must not wait for the result (`has_reached` tells).
"""

from __future__ import annotations

from smmf_core.config import ModelConfig
from smmf_core.config.reload import needs_restart
from smmf_core.controller.lives import Effects, Lives
from smmf_core.controller.reconcile import Reconciler
from smmf_core.controller.room import Room
from smmf_core.controller.table import Table
from smmf_core.errors import ConfigError, ControlError
from smmf_core.lifecycle import BACKOFF, FAILED, STOPPED, WAITING, Child
from smmf_core.registry import LiveRegistry, Model

BY_OPERATOR = "stopped by the operator"
MAX_REPLICAS = 256  # of one model on one machine: more is a slip of the finger


class Verbs:
    """The part of ControllerCore that the admin API calls."""

    registry: LiveRegistry
    table: Table
    room: Room
    lives: Lives
    models: Reconciler
    unix_offset_s: float  # of the clock on the wall to that of `now`
    _effects: Effects

    # --- of models ---

    def start_model(self, model: Model, replicas: int | None, now: float) -> None:
        """Load it; what failed or waits for its next start is tried again at once."""
        self._check_kept(model)
        if replicas is not None:
            self._scale(model, replicas)
        elif not model.target:
            model.target, model.is_scaled = max(1, model.config.deployment.replicas), True
        model.is_stopped, model.is_on_demand, model.reason = False, False, ""
        self._ask(model, now)
        for child in self.table.replicas(model.index):
            child.is_stopped = False
        self._try_again(model)
        self._changed(model, now)
        self.models.retry_waiting(now)

    def stop_model(self, model: Model, force: bool, timeout_s: float | None, now: float) -> None:
        """Drain and end all replicas; requests are refused until it is started."""
        model.is_stopped, model.is_asked, model.former = True, False, None
        model.reason = ""
        for child in self.table.replicas(model.index):
            child.wanted, child.is_stopped = False, False
            self._end(child, force, timeout_s, now)
        self._changed(model, now)

    def restart_model(self, model: Model, now: float) -> None:
        """New processes for all replicas in turn; what is stopped is started."""
        self._check_kept(model)
        self._renew(model)
        self.start_model(model, None, now)

    def scale_model(self, model: Model, replicas: int, now: float) -> None:
        """So many replicas, also after a restart; a stopped model keeps the number for its start.

        0: none runs, and requests are refused, until it is scaled up again.
        """
        self._check_kept(model)
        self._scale(model, replicas)
        self._ask(model, now)
        for child in self.table.replicas(model.index):
            child.is_stopped = False
        self._changed(model, now)
        self.models.retry_waiting(now)

    def pin_model(self, model: Model, pinned: bool, now: float) -> None:
        """Whether it may never be unloaded to make room, nor for being idle."""
        if model.is_pinned != pinned:
            self._effects.note("model", model.name, "pinned" if pinned else "unpinned")
        model.is_pinned = pinned
        self._changed(model, now)
        self.models.retry_waiting(now)

    def want_loaded(self, model: Model, now: float) -> None:
        """Requests wait for it, or will: load it, unless the operator stopped it."""
        if model.is_stopped or model.is_removed:
            return
        model.last_used = max(model.last_used, now)
        if not model.is_wanted:
            model.is_wanted, model.is_on_demand, model.reason = True, True, ""
            model.is_asked = True
            self._changed(model, now)
        elif not model.is_asked and any(c.is_stuck for c in self.table.replicas(model.index)):
            model.is_asked = True
            self.models.retry_waiting(now)

    # --- of what is registered ---

    def add_model(
        self, config: ModelConfig, now: float, *, is_runtime: bool, is_stopped: bool = False
    ) -> Model:
        """Register a model, and load it if it is one that starts with the server.

        Raises ConfigError when its name or an alias is taken. One that is just being removed
        comes back with the new config.
        """
        leaving = self.registry.named(config.model.name)
        if leaving is not None and leaving.is_removed:
            self._bring_back(leaving, config, now)
            leaving.is_runtime, leaving.is_stopped = is_runtime, is_stopped
            self._changed(leaving, now)
            return leaving
        model = self.registry.add(config, int(now + self.unix_offset_s))
        model.is_runtime, model.is_stopped, model.last_used = is_runtime, is_stopped, now
        self._changed(model, now)
        return model

    def remove_model(self, model: Model, now: float) -> None:
        """Drain its replicas, then forget it."""
        model.is_removed, model.is_asked, model.former = True, False, None
        model.reason = "was removed"
        self._changed(model, now)

    def replace_model(self, model: Model, config: ModelConfig, now: float) -> None:
        """A changed config: its processes are replaced in turn if they depend on what changed.

        If the new one does not come up, the former goes on, with the reason. Raises ConfigError.
        """
        self._check_kept(model)
        former = model.config
        self.registry.replace(model, config)
        model.target, model.is_scaled = config.deployment.replicas, False
        if config.deployment.autostart and not former.deployment.autostart:
            model.is_wanted = True
        model.reason = ""
        if needs_restart(former, config):
            self._renew(model, former)
            model.memory_bytes = 0  # of another process
        self._try_again(model)
        self._changed(model, now)

    def keep_model(self, model: Model, now: float) -> None:
        """Its files have it as it is: a change that could not be made is wanted no more."""
        if model.reason and not model.is_removed:
            model.reason = ""
            self._changed(model, now)

    def point_alias(self, alias: str, model: Model, now: float) -> None:
        """Raises ControlError: it is a model's own name."""
        self._check_kept(model)
        if alias not in model.aliases:
            self._effects.note("model", model.name, f"{alias} means it")
        self.registry.point_alias(alias, model)
        self._changed(model, now)

    def forget_alias(self, alias: str, now: float) -> None:
        """Raises ControlError for an unknown one, and for a model's own name."""
        model = self.registry.forget_alias(alias)
        self._effects.note("model", model.name, f"{alias} no longer means it")
        self._changed(model, now)

    # --- of instances ---

    def start_instance(self, child: Child, now: float) -> None:
        """Raises ControlError when the model has no use for it."""
        model = self._wanted_model(child)
        child.is_stopped = False
        child.pardon()
        self._ask(model, now)
        if child.state in (FAILED, BACKOFF):
            self.lives.move(child, STOPPED)
        if not child.wanted and self._has_place(model):
            child.wanted = True
        self._changed(model, now)
        if not child.wanted:
            count = f"{model.target} replica{'s' if model.target > 1 else ''}"
            raise ControlError(
                f"{model.name} has its {count} without {child.name}: scale it up to have more"
            )

    def stop_instance(self, child: Child, force: bool, timeout_s: float | None, now: float) -> None:
        """Drain it and do not start it again until it, or its model, is started."""
        child.is_stopped = child.wanted or child.is_stopped
        child.wanted = False
        self._end(child, force, timeout_s, now)
        self._changed(self.registry.by_index(child.model), now)

    def restart_instance(self, child: Child, now: float) -> None:
        """A new process in its slot; one that does not run is started."""
        if not child.is_alive:
            self.start_instance(child, now)
            return
        model = self._wanted_model(child)
        child.is_stopped, child.wanted = False, True
        child.pardon()
        self.lives.stop(child, now)
        self._changed(model, now)

    def set_online(self, child: Child, online: bool, now: float) -> None:
        """Put it into rotation, or take it out without stopping it. Raises ControlError for one
        that neither runs nor is about to: its name is the next one's, which has done nothing."""
        if not child.wanted and not child.is_alive:
            raise ControlError(f"{child.name} is {child.state}: smmf ps shows what runs")
        child.is_offline = not online
        if online:
            child.removed = ""
        self._changed(self.registry.by_index(child.model), now)

    # --- inside ---

    def _changed(self, model: Model | None, now: float) -> None:
        if model is not None:
            self.models.changed.add(model.index)
            self.models.reconcile(model, now)
        self._effects.publish()

    def _ask(self, model: Model, now: float) -> None:
        """Others make room for it, and whoever asked waits for that from now on."""
        model.is_wanted, model.is_asked, model.last_used = True, True, now
        for child in self.table.replicas(model.index):
            if child.state == WAITING:
                child.started_at = now

    def _bring_back(self, model: Model, config: ModelConfig, now: float) -> None:
        """It was to be removed, and still drains. Raises ConfigError, and it is removed."""
        model.is_removed = False
        try:
            self.replace_model(model, config, now)
        except ConfigError:
            model.is_removed = True
            raise
        model.is_wanted = config.deployment.autostart
        model.is_on_demand = not model.is_wanted

    def _scale(self, model: Model, replicas: int) -> None:
        if not 0 <= replicas <= MAX_REPLICAS:
            raise ControlError(f"replicas must be from 0 to {MAX_REPLICAS}, not {replicas}")
        bounds = model.config.deployment
        least, most = bounds.min_replicas, bounds.max_replicas or 1
        if replicas and least is not None and not least <= replicas <= most:
            raise ControlError(
                f"{model.name} scales by itself between {least} and {most} replicas "
                "([deployment] min_replicas, max_replicas)"
            )
        model.target, model.is_scaled = replicas, True

    def _renew(self, model: Model, former: ModelConfig | None = None) -> None:
        """From now on other processes are wanted; if some serve, they are what to go back to."""
        serves = any(child.is_online for child in self.table.replicas(model.index))
        if serves and model.former is None:
            model.former = (former or model.config, model.generation)
        model.generation = self.registry.changed()

    def _try_again(self, model: Model) -> None:
        """What failed or waits for its next start begins anew, with no count against it."""
        for child in self.table.replicas(model.index):
            child.pardon()
            if child.state in (FAILED, BACKOFF):
                self.lives.move(child, STOPPED)

    def _end(self, child: Child, force: bool, timeout_s: float | None, now: float) -> None:
        self.room.waiting.pop(child.id, None)
        if child.state != STOPPED:
            child.reason = BY_OPERATOR
        self.lives.stop(child, now, timeout_s, force=force)

    def _has_place(self, model: Model) -> bool:
        replicas = self.table.replicas(model.index)
        return sum(child.wanted or child.is_stopped for child in replicas) < model.target

    def _wanted_model(self, child: Child) -> Model:
        model = self.registry.by_index(child.model)
        if model is None:
            raise ControlError(f"{child.name} belongs to no registered model")
        self._check_kept(model)
        if model.is_stopped:
            raise ControlError(f"{model.name} is stopped: start the model")
        return model

    def _check_kept(self, model: Model) -> None:
        if model.is_removed:
            raise ControlError(f"{model.name} is being removed")
