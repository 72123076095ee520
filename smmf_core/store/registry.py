"""`ModelRegistry`: what is registered, as Python code may ask and change it, over a database.

A server of the same name reads it when it starts, and keeps it up to date while it runs. Owns what
a model's status is when its instances are known; must not start anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import msgspec

from smmf_core.errors import ControlError
from smmf_core.lifecycle import MODEL_STATES, TRANSITIONS
from smmf_core.store.records import (
    OFFLINE,
    InstanceRecord,
    ModelChange,
    ModelRecord,
    name_of,
    status_among,
)
from smmf_core.store.storage import SQLAlchemyStorage

INSTANCE_STATES = tuple(dict.fromkeys((*TRANSITIONS, *MODEL_STATES)))


class RegisteredModel(ModelRecord, kw_only=True):
    """A model with its instances. `status` is theirs: ready while one is."""

    instances: list[InstanceRecord] = msgspec.field(default_factory=list)
    is_degraded: bool = False  # ready, and an instance that should be is not


class ModelRegistry:
    """Over an open storage. Every method raises StoreError when the database is away."""

    def __init__(self, storage: SQLAlchemyStorage) -> None:
        self._storage = storage

    @classmethod
    def open(cls, url: str, server: str = "default") -> ModelRegistry:
        """The registry of the server of that name in the database at an SQLAlchemy URL."""
        storage = SQLAlchemyStorage(url, server)
        storage.open()
        return cls(storage)

    def close(self) -> None:
        self._storage.close()

    def register_model(
        self, config: Mapping[str, Any], *, source: str = "", is_runtime: bool = True
    ) -> RegisteredModel:
        """Add a model, or replace its config. `config` is in the form of a model's file; secrets in
        it are best left as references such as `${env:KEY}`. Raises ControlError without a name."""
        name = name_of(config) or PurePath(source).stem
        if not name:
            raise ControlError("a model needs a name: [model] name")
        change = ModelChange(
            model_name=name, config=dict(config), source=source, is_runtime=is_runtime
        )
        with self._storage.transaction():
            record = change.on(self._storage.model(name))
            assert record is not None  # it has a config
            self._storage.put_models([record])
            return self.get_model(name)

    def get_model(self, name: str) -> RegisteredModel:
        """By name, or by an alias pointed at run time. Raises ControlError for an unknown one."""
        with self._storage.transaction():
            known = self._storage.model(name)
            if known is None:
                known = self._storage.model(self._storage.aliases().get(name, ""))
            if known is None:
                raise ControlError(f"no model named {name}")
            return _with_instances(known, self._storage.instances(known.model_name))

    def list_models(
        self,
        type: str = "",  # noqa: A002 - the mission's word
        status: str = "",
        provider: str = "",
    ) -> list[RegisteredModel]:
        """In the order of registration. `type` is local, proxy or an architecture; `provider` that
        of remote models, or a local one's backend; "": any."""
        with self._storage.transaction():
            records, instances = self._storage.models(), self._storage.instances()
        of_model: dict[str, list[InstanceRecord]] = {record.model_name: [] for record in records}
        for instance in instances:
            of_model.setdefault(instance.model_name, []).append(instance)
        models = [_with_instances(record, of_model[record.model_name]) for record in records]
        return [
            model
            for model in models
            if type in ("", model.deployment_type, model.model_type)
            and status in ("", model.status)
            and provider in ("", model.provider)
        ]

    def update_status(self, name: str, status: str, instance: str = "") -> RegisteredModel:
        """Of one instance of the model, which is added if it is new; without `instance`, of the
        model itself: what it is said to be while no instance is ready or on its way.

        Raises ControlError for an unknown model or status.
        """
        known = INSTANCE_STATES if instance else MODEL_STATES
        if status not in known:
            raise ControlError(f"'{status}' is not a status: there are {', '.join(known)}")
        with self._storage.transaction():
            model = self.get_model(name)
            if not instance:
                self._put_status(model.model_name, status)
                return self.get_model(model.model_name)
            found = [record for record in model.instances if record.instance == instance]
            row = found[0] if found else InstanceRecord(instance, model.model_name, status)
            self._storage.put_instances([msgspec.structs.replace(row, status=status)])
            changed = self.get_model(model.model_name)
            self._put_status(changed.model_name, changed.status)
            return changed

    def remove_model(self, name: str) -> None:
        """With its instances and the aliases that point at it. Raises ControlError."""
        with self._storage.transaction():
            model = self.get_model(name)
            aliases = self._storage.aliases().items()
            self._storage.delete_aliases(a for a, owner in aliases if owner == model.model_name)
            self._storage.delete_instances(record.instance for record in model.instances)
            self._storage.delete_models([model.model_name])

    def _put_status(self, name: str, status: str) -> None:
        record = self._storage.model(name)
        assert record is not None  # in the same transaction as it was found
        self._storage.put_models([msgspec.structs.replace(record, status=status)])


def _with_instances(record: ModelRecord, instances: list[InstanceRecord]) -> RegisteredModel:
    states = [OFFLINE if i.is_offline else i.status for i in instances]
    status, is_degraded = status_among(record.status, states)
    values = {**msgspec.structs.asdict(record), "status": status}
    return RegisteredModel(**values, instances=instances, is_degraded=is_degraded)
