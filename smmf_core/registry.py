"""The Registry: which models exist, under which index, with which replicas, and its version.

Pure and in memory. Owns the truth about models; must not know processes (lifecycle does).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from smmf_core.config import Limits, ModelConfig
from smmf_core.errors import ConfigError, ControlError
from smmf_core.messages import ModelEntry


@dataclass(slots=True, eq=False)
class Model:
    """One registered model. `index` is its number in the Routers' Schedulers, stable for a name."""

    index: int
    config: ModelConfig
    created: int  # Unix time
    context_length: int = 0  # known once a replica has loaded it
    capabilities: list[str] = field(default_factory=list)
    adapters: list[str] = field(default_factory=list)  # those that every ready replica has
    wanted_adapters: dict[str, str] | None = None  # name -> path; None: as the file has it
    adapter_serial: int = 0  # of the last wish

    @property
    def name(self) -> str:
        return self.config.model.name

    def entry(self, state: str, reason: str, limits: Limits) -> ModelEntry:
        """What Routers must know."""
        model = self.config.model
        return ModelEntry(
            index=self.index,
            name=model.name,
            aliases=model.aliases,
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
        )


class ModelRegistry:
    """Models by name and alias, in the order of their registration.

    `known` are indexes that a former Controller gave to names: Routers that survived it use them.
    """

    def __init__(self, known: Mapping[str, int] | None = None, version: int = 0) -> None:
        self._known = dict(known or {})
        self._models: dict[str, Model] = {}
        self._names: dict[str, str] = {}  # alias or name -> name
        self.version = version

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def __len__(self) -> int:
        return len(self._models)

    def add(self, config: ModelConfig, created: int) -> Model:
        """Raises ConfigError when a name or alias is taken."""
        name = config.model.name
        for taken in (name, *config.model.aliases):
            if taken in self._names:
                raise ConfigError(f"{config.source}: two models are called {taken!r}")
        index = self._known.get(name)
        if index is None:
            index = max(self._known.values(), default=-1) + 1
            self._known[name] = index
        model = Model(index, config, created)
        self._models[name] = model
        self._names.update(dict.fromkeys((name, *config.model.aliases), name))
        self.changed()
        return model

    def find(self, name: str) -> Model:
        """By name or alias. Raises ControlError for an unknown one."""
        found = self._names.get(name)
        if found is None:
            raise ControlError(f"no model named {name}")
        return self._models[found]

    def changed(self) -> int:
        """A new version: what Routers hold is old."""
        self.version += 1
        return self.version
