"""The model objects of `GET /v1/models` and `/v1/models/{id}`.

Owns their fields; must not decide which models there are.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

import msgspec

from smmf_core.control_messages import ModelEntry


class _Model(msgspec.Struct, gc=False):
    """OpenAI's four fields, vLLM's `root` and `max_model_len`, and our own."""

    id: str
    created: int
    root: str  # the model that an alias or an adapter belongs to; else its own id
    max_model_len: int | None  # null until a Worker has loaded it
    status: str
    task: str
    capabilities: list[str]
    object: str = "model"
    owned_by: str = "smmf"


def render_models(entries: Iterable[ModelEntry], shown: Container[str] | None = None) -> bytes:
    """The list: all models in the order given, then their aliases, then their adapters; of `shown`
    ids, if they are given."""
    known = list(entries)
    data = [_model(entry, entry.name) for entry in known]
    data += [_model(entry, alias) for entry in known for alias in entry.aliases]
    data += [_model(e, f"{e.name}:{adapter}") for e in known for adapter in e.adapters]
    if shown is not None:
        data = [model for model in data if model.id in shown]
    return msgspec.json.encode({"object": "list", "data": data})


def render_model(entry: ModelEntry, name: str) -> bytes:
    """One model as the client named it: by its name or an alias."""
    return msgspec.json.encode(_model(entry, name))


def _model(entry: ModelEntry, name: str) -> _Model:
    return _Model(
        id=name,
        created=entry.created,
        root=entry.name,
        max_model_len=entry.context_length or None,
        status=entry.state,
        task=entry.task,
        capabilities=entry.capabilities,
    )
