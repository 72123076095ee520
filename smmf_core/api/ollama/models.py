"""The answers about models: `/api/tags`, `/api/ps` and `/api/show`.

Owns their fields; must not decide which models there are. A Router does not know sizes and
quantisations: they are 0 and "". A `digest` names what is registered, not bytes on a disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable
from typing import Any

import msgspec

from smmf_core.adapters.families import FAMILIES
from smmf_core.api.ollama.render import created_at
from smmf_core.api.ollama.schema import NameBody
from smmf_core.api.openai.decode import decode, missing
from smmf_core.control_messages import ModelEntry

API_VERSION = "0.32.0"  # the release of Ollama whose API this is: clients ask for a least one
_FOR_EVER = b"2199-01-01T00:00:00.000000Z"
_CAPABILITIES = {
    "generate": {"tools": "tools", "vision": "vision", "reasoning": "thinking"},
    "embed": {},
}
_TASKS = {"generate": "completion", "embed": "embedding"}
_FORMATS = {"llama_cpp": "gguf", "transformers": "safetensors", "reference": "safetensors"}
_FORMATS |= {"vllm": "safetensors", "mlx": "safetensors"}
_PARAMETERS = {"max_tokens": "num_predict", "repetition_penalty": "repeat_penalty"}
_OPTIONS = (
    "max_tokens", "temperature", "top_k", "top_p", "min_p", "seed", "stop", "presence_penalty",
    "frequency_penalty", "repetition_penalty",
)  # fmt: skip

_name = msgspec.json.Decoder(NameBody)
_encode = msgspec.json.encode

Object = dict[str, Any]


def find_name(body: bytes) -> str:
    """Which model a body is about. Raises ApiError (400)."""
    asked = decode(_name, body)
    name = asked.model or asked.name
    if not name:
        raise missing("model")
    return name


def render_tags(entries: Iterable[ModelEntry], shown: Container[str] | None = None) -> bytes:
    """All names, or those that are `shown`: of models in the order given, then aliases, then
    adapters."""
    known = list(entries)
    names = [(entry, entry.name) for entry in known]
    names += [(entry, alias) for entry in known for alias in entry.aliases]
    names += [(e, f"{e.name}:{adapter}") for e in known for adapter in e.adapters]
    models = [
        {**_model(entry, name), "modified_at": _modified(entry), "capabilities": _can(entry)}
        for entry, name in names
        if shown is None or name in shown
    ]
    return _encode({"models": models})


def render_ps(loaded: Iterable[tuple[ModelEntry, float | None]], now: int) -> bytes:
    """The models that are loaded, each with the keep_alive that a request gave: -1 is for ever, as
    long as the configuration says where none did."""
    models = []
    for entry, keep_alive_s in loaded:
        ends = keep_alive_s is not None and keep_alive_s >= 0
        expires_at = created_at(now + int(keep_alive_s or 0)) if ends else _FOR_EVER
        more = {
            "expires_at": expires_at.decode(),
            "size_vram": 0,
            "context_length": entry.context_length,
        }
        models.append({**_model(entry, entry.name), **more})
    return _encode({"models": models})


def render_show(entry: ModelEntry, name: str) -> bytes:
    """One model, by the name that the client called it."""
    details = _details(entry, name)
    architecture = details["family"]
    info: Object = {"general.architecture": architecture, "general.basename": entry.name}
    if entry.context_length:
        info[f"{architecture}.context_length"] = entry.context_length
    if entry.dimensions:
        info[f"{architecture}.embedding_length"] = entry.dimensions
    parameters = _parameters(entry)
    lines = [f"FROM {entry.name}", *(f"PARAMETER {line}" for line in parameters)]
    return _encode(
        {
            "modelfile": "\n".join(lines),
            "parameters": "\n".join(parameters),
            "template": "",
            "details": details,
            "model_info": info,
            "capabilities": _can(entry),
            "modified_at": _modified(entry),
        }
    )


def _model(entry: ModelEntry, name: str) -> Object:
    tagged = name if ":" in name else f"{name}:latest"
    return {
        "name": tagged,
        "model": tagged,
        "size": 0,
        "digest": _digest(entry, name),
        "details": _details(entry, name),
    }


def _details(entry: ModelEntry, name: str) -> Object:
    family = _family(entry)
    return {
        "parent_model": "" if name.removesuffix(":latest") == entry.name else entry.name,
        "format": _FORMATS.get(entry.backend, ""),
        "family": family,
        "families": [family],
        "parameter_size": "",
        "quantization_level": "",
    }


def _family(entry: ModelEntry) -> str:
    """By the model's name, as its checkpoint is not read here; else what runs it."""
    found = [family.name for family in FAMILIES if family.matches(entry.name, "", "", ())]
    return found[0] if found else entry.backend


def _can(entry: ModelEntry) -> list[str]:
    """The capabilities in Ollama's words; of a model that was never loaded, what its task is."""
    if entry.task not in _TASKS:
        return []
    words = _CAPABILITIES[entry.task]
    return [_TASKS[entry.task], *(words[known] for known in entry.capabilities if known in words)]


def _parameters(entry: ModelEntry) -> list[str]:
    lines = [f"num_ctx {entry.context_length}"] if entry.context_length else []
    for name in _OPTIONS:
        value = entry.defaults.get(name)
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                shown = _encode(one).decode() if isinstance(one, str) else f"{one}"
                lines.append(f"{_PARAMETERS.get(name, name)} {shown}")
    return lines


def _digest(entry: ModelEntry, name: str) -> str:
    return hashlib.sha256(f"{name} {entry.backend} {entry.created}".encode()).hexdigest()


def _modified(entry: ModelEntry) -> str:
    return created_at(entry.created).decode()
