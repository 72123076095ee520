"""The answers of Ollama's routes as structs, for the description only.

Owns their fields and types; must not be used to make an answer. Spans of time are in nanoseconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Count = Annotated[int, Meta(ge=0)]


class OllamaError(Struct):
    error: str


class OllamaMessage(Struct):
    role: Literal["assistant"]
    content: str
    thinking: str | UnsetType = UNSET
    tool_calls: list[dict[str, Any]] | UnsetType = UNSET


class _Part(Struct, kw_only=True):
    """A line of a stream, or the whole answer: the last line has `done`, why, and the counts."""

    model: str
    created_at: str
    done: bool
    done_reason: Literal["stop", "length", "content_filter", "load", "unload"] | UnsetType = UNSET
    logprobs: list[dict[str, Any]] | UnsetType = UNSET
    total_duration: Count | UnsetType = UNSET
    load_duration: Count | UnsetType = UNSET
    prompt_eval_count: Count | UnsetType = UNSET
    prompt_eval_duration: Count | UnsetType = UNSET
    eval_count: Count | UnsetType = UNSET
    eval_duration: Count | UnsetType = UNSET


class OllamaChat(_Part, kw_only=True):
    __doc__ = _Part.__doc__

    message: OllamaMessage


class OllamaText(_Part, kw_only=True):
    __doc__ = _Part.__doc__

    response: str
    thinking: str | UnsetType = UNSET


class OllamaVectors(Struct):
    model: str
    embeddings: list[list[float]]
    total_duration: Count | UnsetType = UNSET
    load_duration: Count | UnsetType = UNSET
    prompt_eval_count: Count | UnsetType = UNSET


class OllamaVector(Struct):
    embedding: list[float]


class OllamaModel(Struct):
    name: str
    model: str
    size: Count
    digest: str
    details: dict[str, Any]
    modified_at: str | UnsetType = UNSET
    capabilities: list[str] | UnsetType = UNSET
    expires_at: str | UnsetType = UNSET
    size_vram: Count | UnsetType = UNSET
    context_length: Count | UnsetType = UNSET


class OllamaModels(Struct):
    models: list[OllamaModel]


class OllamaShown(Struct):
    modelfile: str
    parameters: str
    template: str
    details: dict[str, Any]
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class OllamaVersion(Struct):
    version: str


class OllamaStatus(Struct):
    status: Literal["success"]
