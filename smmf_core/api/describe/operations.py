"""Which operations there are, what they take and what they answer.

Owns the table; must not route. A test holds it against the routes that there are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from smmf_core.api.anthropic.schema import CountBody, MessagesBody
from smmf_core.api.describe import answers as a
from smmf_core.api.describe import anthropic_answers as aa
from smmf_core.api.describe import ollama_answers as oa
from smmf_core.api.describe import responses_answers as ra
from smmf_core.api.ollama import schema as ollama
from smmf_core.api.openai.embeddings import EmbeddingsBody
from smmf_core.api.openai.rerank import RelevanceBody, RerankBody
from smmf_core.api.openai.schema import ChatBody, CompletionBody
from smmf_core.api.openai.score import ScoreBody
from smmf_core.api.openai.tokenize import DetokenizeBody, TokenizeBody
from smmf_core.api.responses.schema import InputBody, ResponsesBody

EVENTS, LINES, PLAIN = "text/event-stream", "application/x-ndjson", "text/plain"


class Operation(NamedTuple):
    """`body` and the answers are structs; None: it has none, or it is not JSON."""

    path: str
    name: str
    tag: str
    summary: str
    body: Any = None
    answer: Any = None
    event: Any = None  # of its stream
    stream: str = EVENTS
    error: Any = a.Error
    is_open: bool = False  # needs no key
    plain: str = ""  # the media type of an answer that is no JSON
    param: str = ""  # in the path


OPERATIONS = [
    Operation(
        "/v1/models", "listModels", "models", "The models that there are.", None, a.ModelList
    ),
    Operation(
        "/v1/models/{id}", "getModel", "models",
        "One model, by its name, an alias, or `model:adapter`. An id may hold slashes and colons, "
        "percent-encoded or as they are.",
        None, a.Model, param="id",
    ),
    Operation(
        "/v1/chat/completions", "createChatCompletion", "generate", "An answer to a chat.",
        ChatBody, a.ChatCompletion, a.ChatCompletionChunk,
    ),
    Operation(
        "/v1/completions", "createCompletion", "generate", "How a text goes on.",
        CompletionBody, a.TextCompletion, a.TextCompletion,
    ),
    Operation(
        "/v1/responses", "createResponse", "generate", "An answer, as a list of items.",
        ResponsesBody, ra.Response, ra.ResponseEvent,
    ),
    Operation(
        "/v1/responses/input_tokens", "countResponseTokens", "tokens",
        "How many tokens such a request's prompt has.", InputBody, ra.InputTokens,
    ),
    Operation(
        "/v1/messages", "createMessage", "generate", "An answer to a chat, as Anthropic's.",
        MessagesBody, aa.Message, aa.MessageEvent, error=aa.AnthropicError,
    ),
    Operation(
        "/v1/messages/count_tokens", "countMessageTokens", "tokens",
        "How many tokens such a request's prompt has.",
        CountBody, aa.TokenCount, error=aa.AnthropicError,
    ),
    Operation(
        "/v1/embeddings", "createEmbedding", "embed", "The vectors of texts.",
        EmbeddingsBody, a.EmbeddingList,
    ),
    Operation(
        "/v1/rerank", "rerank", "rerank", "Documents by how well they answer a query.",
        RerankBody, a.Ranking,
    ),
    Operation("/rerank", "rerankPlain", "rerank", "As `/v1/rerank`.", RerankBody, a.Ranking),
    Operation(
        "/v2/rerank", "rerankV2", "rerank",
        "As `/v1/rerank`; long documents are cut, as Cohere's second version cuts them.",
        RerankBody, a.Ranking,
    ),
    Operation(
        "/v1/beta/relevance", "relevance", "rerank", "Scores in the documents' order (DB-GPT).",
        RelevanceBody, a.Relevance,
    ),
    Operation("/v1/score", "score", "rerank", "Scores of pairs of texts.", ScoreBody, a.Scores),
    Operation(
        "/tokenize", "tokenize", "tokens", "A text or a chat as tokens.", TokenizeBody, a.Tokens
    ),
    Operation(
        "/detokenize", "detokenize", "tokens", "Tokens as a text.", DetokenizeBody, a.Detokenized
    ),
    Operation(
        "/api/chat", "ollamaChat", "generate", "An answer to a chat, as Ollama's.",
        ollama.ChatBody, oa.OllamaChat, oa.OllamaChat, LINES, oa.OllamaError,
    ),
    Operation(
        "/api/generate", "ollamaGenerate", "generate", "An answer to a prompt, as Ollama's.",
        ollama.GenerateBody, oa.OllamaText, oa.OllamaText, LINES, oa.OllamaError,
    ),
    Operation(
        "/api/embed", "ollamaEmbed", "embed", "The vectors of texts, as Ollama's.",
        ollama.EmbedBody, oa.OllamaVectors, error=oa.OllamaError,
    ),
    Operation(
        "/api/embeddings", "ollamaEmbeddings", "embed", "The vector of one text, as Ollama's.",
        ollama.OldEmbedBody, oa.OllamaVector, error=oa.OllamaError,
    ),
    Operation(
        "/api/show", "ollamaShow", "models", "One model, as Ollama's.",
        ollama.NameBody, oa.OllamaShown, error=oa.OllamaError,
    ),
    Operation(
        "/api/pull", "ollamaPull", "models", "That a model is here: none is fetched.",
        ollama.NameBody, oa.OllamaStatus, error=oa.OllamaError,
    ),
    Operation(
        "/api/tags", "ollamaTags", "models", "The models that there are, as Ollama's.",
        None, oa.OllamaModels, error=oa.OllamaError,
    ),
    Operation(
        "/api/ps", "ollamaPs", "models", "The models that are loaded, as Ollama's.",
        None, oa.OllamaModels, error=oa.OllamaError,
    ),
    Operation(
        "/api/version", "ollamaVersion", "models", "The release whose API this is.",
        None, oa.OllamaVersion, error=oa.OllamaError,
    ),
    Operation(
        "/health", "health", "probes", "The server lives.", None, a.Status, is_open=True
    ),
    Operation(
        "/v1/health", "healthV1", "probes", "As `/health`.", None, a.Status, is_open=True
    ),
    Operation(
        "/ready", "ready", "probes", "Some model can answer.", None, a.Status, is_open=True
    ),
    Operation(
        "/metrics", "metrics", "probes", "All Routers' counters, as Prometheus reads them.",
        is_open=True, plain=PLAIN,
    ),
    Operation(
        "/openapi.json", "describe", "probes", "This document.", None, dict[str, Any], is_open=True
    ),
]  # fmt: skip
