"""The model objects that Anthropic's clients ask for, at the paths of OpenAI's.

Owns their fields; must not decide which models there are. What such a client calls `capabilities`
are Anthropic's own features, so it is null: ours are in OpenAI's form, under the same name.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from datetime import UTC, datetime

import msgspec

from smmf_core.control_messages import ModelEntry

HEADER = b"anthropic-version"  # every client of that API sends it, and no other does


class _Model(msgspec.Struct, gc=False):
    id: str
    display_name: str
    created_at: str  # RFC 3339
    max_input_tokens: int | None  # null until a Worker has loaded it
    max_tokens: int | None
    type: str = "model"
    lifecycle: str = "active"
    capabilities: None = None
    deprecated_at: None = None
    retires_at: None = None
    line: None = None


def render_models(entries: Iterable[ModelEntry], shown: Container[str] | None = None) -> bytes:
    """One page with all models that answer Messages, then their aliases, then their adapters; of
    `shown` ids, if they are given."""
    known = [entry for entry in entries if entry.task == "generate"]
    data = [_model(entry, entry.name) for entry in known]
    data += [_model(entry, alias) for entry in known for alias in entry.aliases]
    data += [_model(e, f"{e.name}:{adapter}") for e in known for adapter in e.adapters]
    if shown is not None:
        data = [model for model in data if model.id in shown]
    ends = {
        "first_id": data[0].id if data else None,
        "last_id": data[-1].id if data else None,
        "has_more": False,
    }
    return msgspec.json.encode({"data": data, **ends})


def render_model(entry: ModelEntry, name: str) -> bytes:
    """One model as the client named it: by its name or an alias."""
    return msgspec.json.encode(_model(entry, name))


def _model(entry: ModelEntry, name: str) -> _Model:
    created = datetime.fromtimestamp(entry.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    length = entry.context_length or None
    return _Model(name, entry.name, created, length, length)
