"""The live registry: which models exist, what is wanted of each, what is known of it, its version.

Pure and in memory. Owns the truth about models; must not know processes (lifecycle does) nor where
it is kept (store does).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from smmf_core.config import Limits, ModelConfig
from smmf_core.control_messages import ModelEntry, ModelLoad
from smmf_core.errors import ConfigError, ControlError

PROVIDERS_COST = 1000.0  # no model here is as large


@dataclass(slots=True, eq=False)
class Model:
    """One registered model. `index` is its number in the Routers' Schedulers, stable for a name."""

    index: int
    config: ModelConfig
    created: int  # Unix time
    aliases: list[str] = field(default_factory=list)  # as they point now
    # what is wanted
    target: int = 1  # replicas, while it is loaded
    is_wanted: bool = True  # to be loaded: since the start, by the operator, or by a request
    is_stopped: bool = False  # by the operator
    is_removed: bool = False  # drains, then is forgotten
    is_pinned: bool = False  # never evicted
    is_scaled: bool = False  # `target` is the operator's word, not the file's
    is_runtime: bool = False  # registered while the server ran
    is_on_demand: bool = False  # loaded by a request: a failure is forgotten after its back-off
    is_asked: bool = False  # by the operator or by requests, and not there yet: others make room
    generation: int = 1  # of the processes that are wanted: a change of it replaces them in turn
    former: tuple[ModelConfig, int] | None = None  # what serves until the new generation does
    keep_alive_s: float | None = None  # as the newest request that gave one has it
    adapters: list[str] = field(default_factory=list)  # those that every ready replica has
    wanted_adapters: dict[str, str] | None = None  # name -> path; None: as the file has it
    adapter_serial: int = 0  # of the last wish
    # what is known, once a replica has loaded it
    context_length: int = 0
    capabilities: list[str] = field(default_factory=list)
    dimensions: int = 0
    memory_bytes: int = 0  # of one replica, measured
    load_s: float = 0.0  # of the last load
    # its use
    last_used: float = 0.0  # monotonic
    loads: dict[int, ModelLoad] = field(default_factory=dict)  # by Router
    reason: str = ""  # of what was last wanted and could not be had

    @property
    def name(self) -> str:
        return self.config.model.name

    @property
    def desired(self) -> int:
        """How many replicas should run now."""
        is_off = self.is_stopped or self.is_removed or not self.is_wanted
        return 0 if is_off else self.target

    @property
    def waiting(self) -> int:
        """Requests in the Routers' queues."""
        return sum(load.waiting for load in self.loads.values())

    @property
    def running(self) -> int:
        return sum(load.running for load in self.loads.values())

    @property
    def is_busy(self) -> bool:
        return any(load.waiting or load.running for load in self.loads.values())

    @property
    def idle_s(self) -> float:
        """Unused for so long, it is unloaded; inf: never. A request's word wins over the file's."""
        if self.keep_alive_s is None:
            return self.config.deployment.idle_s
        return math.inf if self.keep_alive_s < 0 else self.keep_alive_s

    def cost(self, need_bytes: int) -> float:
        """Of a request, relative to other models': as configured, else by size, in GB. A provider's
        model has none that is known here; one of ours is to be preferred."""
        size = PROVIDERS_COST if self.config.is_remote else need_bytes // 10**8 / 10
        return self.config.model.cost or size

    def entry(
        self, state: str, reason: str, limits: Limits, need_bytes: int, retry_in_s: float = 0.0
    ) -> ModelEntry:
        """What Routers must know."""
        model = self.config.model
        return ModelEntry(
            index=self.index,
            name=model.name,
            aliases=self.aliases,
            task=model.task,
            backend=model.backend,
            state=state,
            reason=reason,
            created=self.created,
            context_length=self.context_length,
            strategy=self.config.routing.strategy,
            max_queue=limits.max_queue,
            max_queue_tokens=limits.max_queue_tokens,
            defaults=self.config.inference,
            capabilities=self.capabilities,
            adapters=self.adapters,
            dimensions=self.dimensions,
            cost=self.cost(need_bytes),
            retry_in_s=retry_in_s,
        )


class LiveRegistry:
    """Models by name and alias, in the order of their registration.

    `known` are indexes that a former Controller gave to names: Routers that survived it use them.
    """

    def __init__(self, known: Mapping[str, int] | None = None, version: int = 0) -> None:
        self._known = dict(known or {})
        self._models: dict[str, Model] = {}
        self._by_index: dict[int, Model] = {}
        self._names: dict[str, str] = {}  # alias or name -> name
        self.pointed: dict[str, str] = {}  # aliases pointed by the operator -> the model's name
        self.version = version

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def __len__(self) -> int:
        return len(self._models)

    def by_index(self, index: int) -> Model | None:
        return self._by_index.get(index)

    def named(self, name: str) -> Model | None:
        """By its own name only."""
        return self._models.get(name)

    def owner_of(self, name: str) -> Model | None:
        """Whose own name or whose file's alias it is; what the operator pointed is nobody's."""
        found = None if name in self.pointed else self._names.get(name)
        return self._models[found] if found is not None else None

    def find(self, name: str) -> Model:
        """By name or alias. Raises ControlError for an unknown one."""
        found = self._names.get(name)
        if found is None:
            raise ControlError(f"no model named {name}")
        return self._models[found]

    def add(self, config: ModelConfig, created: int) -> Model:
        """Raises ConfigError when a name or alias is taken."""
        name = config.model.name
        aliases = [alias for alias in config.model.aliases if alias != name]
        self._check_free(config, [name, *(a for a in aliases if a not in self.pointed)])
        index = self._known.get(name)
        if index is None:
            index = max(self._known.values(), default=-1) + 1
            self._known[name] = index
        model = Model(index, config, created, target=config.deployment.replicas)
        model.generation = self.version
        model.is_wanted = config.deployment.autostart
        model.is_on_demand = not model.is_wanted
        self._forget_alias(name)  # of one that is being removed
        self._models[name] = model
        self._by_index[index] = model
        self._names[name] = name
        for alias in aliases:
            self._point(alias, model)
        self.changed()
        return model

    def replace(self, model: Model, config: ModelConfig) -> None:
        """Another config of the same name: what it names wins over what the operator said.

        Raises ConfigError when an alias is taken.
        """
        aliases = [alias for alias in config.model.aliases if alias != model.name]
        added = [alias for alias in aliases if alias not in model.config.model.aliases]
        self._check_free(config, [alias for alias in added if alias not in self.pointed])
        self.give_up_aliases(model, config)
        for alias in aliases:
            self._point(alias, model)
        model.config = config
        self.changed()

    def give_up_aliases(self, model: Model, config: ModelConfig) -> None:
        """Those of its file that another config of it has no more: others may take them."""
        for alias in model.config.model.aliases:
            if alias in model.aliases and alias not in (*config.model.aliases, *self.pointed):
                self._forget_alias(alias)

    def remove(self, model: Model) -> None:
        for alias in list(model.aliases):
            self._forget_alias(alias)
        del self._names[model.name], self._models[model.name], self._by_index[model.index]
        self.changed()

    def point_alias(self, alias: str, model: Model) -> None:
        """Have an alias mean that model from now on. Raises ControlError: it is a model's name."""
        if alias in self._models:
            raise ControlError(f"{alias} is a model's own name; an alias must be another word")
        self._point(alias, model)
        self.pointed[alias] = model.name
        self.changed()

    def forget_alias(self, alias: str) -> Model:
        """The model that it meant. Raises ControlError: there is no such alias."""
        model = self._models.get(self._names.get(alias, ""))
        if model is None or alias == model.name:
            raise ControlError(f"no alias named {alias}")
        self._forget_alias(alias)
        self.changed()
        return model

    def arrange(self, names: Iterable[str]) -> None:
        """These first, in this order; then the others in theirs."""
        first = [name for name in names if name in self._models]
        self._models = {name: self._models[name] for name in dict.fromkeys([*first, *self._models])}

    def changed(self) -> int:
        """A new version: what Routers hold is old."""
        self.version += 1
        return self.version

    def _check_free(self, config: ModelConfig, names: list[str]) -> None:
        own = config.model.name
        for taken in names:
            owner = self._names.get(taken)
            if owner is not None and taken != owner and self._models[owner].is_removed:
                continue  # it drains, and needs its aliases no more
            if owner is not None and (owner != own or taken == own):
                raise ConfigError(f"{config.source}: two models are called {taken!r}")

    def _point(self, alias: str, model: Model) -> None:
        self._forget_alias(alias)
        self._names[alias] = model.name
        model.aliases = [*model.aliases, alias]

    def _forget_alias(self, alias: str) -> None:
        owner = self._models.get(self._names.pop(alias, ""))
        self.pointed.pop(alias, None)
        if owner is not None:
            owner.aliases = [other for other in owner.aliases if other != alias]
