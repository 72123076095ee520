"""What a call may say beside its model and its text: the fields of the server's request bodies.

Owns their names and types, for type checkers and editors; their values are judged by the server
only, so that there is one set of rules.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class Options(TypedDict, total=False):
    """Of every call."""

    priority: int
    keep_alive: float | str
    smmf: dict[str, Any]


class _Generate(Options, total=False):
    user: str
    n: int
    max_tokens: int
    min_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    logit_bias: dict[str, float]
    seed: int
    stop: str | list[str]
    stop_token_ids: list[int]
    include_stop_str_in_output: bool
    ignore_eos: bool
    smmf_echo: dict[str, Any]  # of the echo engine


class ChatOptions(_Generate, total=False):
    """`/v1/chat/completions`"""

    max_completion_tokens: int
    logprobs: bool
    top_logprobs: int
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool
    response_format: dict[str, Any]
    reasoning_effort: Effort
    chat_template_kwargs: dict[str, Any]
    add_generation_prompt: bool
    continue_final_message: bool


class CompletionOptions(_Generate, total=False):
    """`/v1/completions`"""

    logprobs: int
    echo: bool
    best_of: int
    suffix: str


class EmbedOptions(Options, total=False):
    """`/v1/embeddings`; vectors travel as bytes, whatever `encoding_format` says."""

    dimensions: int
    user: str


class RerankOptions(Options, total=False):
    """`/v1/rerank`"""

    top_n: int
    return_documents: bool
    max_tokens_per_doc: int


class ScoreOptions(Options, total=False):
    """`/v1/score`"""

    truncate_prompt_tokens: int
    user: str


class TokenizeOptions(Options, total=False):
    """`/tokenize`; those behind the second are a chat's."""

    add_special_tokens: bool
    return_token_strs: bool
    add_generation_prompt: bool
    continue_final_message: bool
    chat_template_kwargs: dict[str, Any]
    tools: list[dict[str, Any]]
