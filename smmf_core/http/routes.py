"""Which path does what on the inference port.

Decodes and checks a request once, hands it to the Router's core, and answers what needs no Worker.
Owns no request state; must not frame streams.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Protocol

from smmf_core import __version__
from smmf_core.api import openai
from smmf_core.config import ServerConfig
from smmf_core.errors import ApiError
from smmf_core.http.request import Request
from smmf_core.metrics import Metrics
from smmf_core.native._frames import StreamTable
from smmf_core.router.core import RouterCore
from smmf_core.router.fleet import Model
from smmf_core.router.response import Answer, StreamAnswer

Headers = list[tuple[bytes, bytes]]

_JSON = (b"content-type", b"application/json")
_PREFIXES = ("/v1", "/api/v1", "")  # OpenAI's, DB-GPT's, llama.cpp's
_BYTES_PER_TOKEN = 4  # an estimate, until the Worker's Admit tells
_CORS_MAX_AGE_S = b"600"
_EMBED_ROUTES = {"embed": "embeddings", "rerank": "rerank"}  # as metrics name them
_PATHS = {
    "generate": "/v1/chat/completions and /v1/completions",
    "embed": "/v1/embeddings",
    "rerank": "/v1/rerank",
}
_EXPOSED = b"x-request-id, x-smmf-instance, retry-after"


class Gateway(Protocol):
    """What the routes need of the Router's shell."""

    table: StreamTable
    metrics: Metrics

    @property
    def core(self) -> RouterCore: ...
    @property
    def is_ready(self) -> bool: ...
    @property
    def now(self) -> float: ...
    @property
    def wall_s(self) -> int: ...
    def opened(self, answer: Answer) -> None: ...
    def disconnected(self, answer: Answer) -> None: ...
    def writable(self, answer: Answer) -> None: ...
    def on_end(self, answer: Answer) -> None: ...
    def gathered_metrics(self) -> Metrics: ...


class Routes:
    """The HTTP application of a Router (http.protocol.Application)."""

    def __init__(self, gateway: Gateway, config: ServerConfig) -> None:
        self._gateway = gateway
        self._keys = {key.encode(): n for n, key in enumerate(config.server.api_keys, start=1)}
        self._origins = frozenset(origin.encode() for origin in config.server.cors_origins)
        self._fingerprint = f"smmf-{__version__}"
        self._ids = itertools.count(int.from_bytes(os.urandom(6)))
        self._routes: dict[str, tuple[str, Callable[[Request, Headers, int], None]]] = {
            "/health": ("GET", self._health),
            "/v1/health": ("GET", self._health),
            "/ready": ("GET", self._ready),
            "/metrics": ("GET", self._metrics),
        }
        for prefix in _PREFIXES:
            self._routes[f"{prefix}/models"] = ("GET", self._models)
            self._routes[f"{prefix}/chat/completions"] = ("POST", self._chat)
            self._routes[f"{prefix}/completions"] = ("POST", self._completion)
            self._routes[f"{prefix}/embeddings"] = ("POST", self._embeddings)
            self._routes[f"{prefix}/rerank"] = ("POST", self._rerank)

    # --- Application ---

    def on_request(self, request: Request) -> None:
        headers = self._common_headers(request)
        try:
            self._route(request, headers)
        except ApiError as error:
            self._refuse(request, headers, error)

    def on_disconnect(self, request: Request) -> None:
        if request.answer is not None:
            self._gateway.disconnected(request.answer)

    def on_writable(self, request: Request) -> None:
        if request.answer is not None:
            self._gateway.writable(request.answer)

    # --- inside ---

    def _route(self, request: Request, headers: Headers) -> None:
        """1 CORS preflight; 2 a fixed path; 3 a model's own path; 4 nothing."""
        path, method = request.path, request.method
        if method == "OPTIONS":
            self._preflight(request, headers)
            return
        found = self._routes.get(path) or self._model_route(path)
        if found is None:
            raise ApiError("unknown_url", f"Invalid URL ({method} {path[:100]})")
        allowed, act = found
        if method != allowed and not (method == "HEAD" and allowed == "GET"):
            headers.append((b"allow", allowed.encode()))
            raise ApiError("method_not_supported", f"{path} takes {allowed}, not {method[:20]}.")
        act(request, headers, self._tenant(request, path))

    def _model_route(self, path: str) -> tuple[str, Callable[[Request, Headers, int], None]] | None:
        """`/v1/models/{id}`, where ids may hold slashes and colons."""
        is_model = any(path.startswith(f"{prefix}/models/") for prefix in _PREFIXES)
        return ("GET", self._model) if is_model else None

    def _common_headers(self, request: Request) -> Headers:
        headers = [(b"x-request-id", request.id())]
        origin = request.headers.get(b"origin")
        if origin is not None and (origin in self._origins or b"*" in self._origins):
            headers += [
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", _EXPOSED),
                (b"vary", b"origin"),
            ]
        return headers

    def _preflight(self, request: Request, headers: Headers) -> None:
        wanted = request.headers.get(b"access-control-request-headers", b"*")
        headers += [
            (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
            (b"access-control-allow-headers", wanted),
            (b"access-control-max-age", _CORS_MAX_AGE_S),
        ]
        request.respond(204, headers, b"")

    def _tenant(self, request: Request, path: str) -> int:
        """The number of the request's key; 0 when no keys are configured.

        Raises ApiError 401. Health and metrics need no key.
        """
        if not self._keys or path in ("/health", "/v1/health", "/ready", "/metrics"):
            return 0
        given = request.headers.get(b"authorization", b"")
        scheme, _, key = given.partition(b" ")
        if scheme.lower() != b"bearer":
            key = request.headers.get(b"x-api-key") or request.headers.get(b"api-key") or b""
        tenant = self._keys.get(key.strip())
        if tenant is None:
            what = "Incorrect API key provided." if key else "You did not provide an API key."
            raise ApiError("invalid_api_key", what)
        return tenant

    def _refuse(self, request: Request, headers: Headers, error: ApiError) -> None:
        request.respond(error.status, [_JSON, *error.headers(), *headers], error.body())

    # --- answers without a Worker ---

    def _health(self, request: Request, headers: Headers, tenant: int) -> None:
        request.respond(200, [_JSON, *headers], b'{"status":"ok"}')

    def _ready(self, request: Request, headers: Headers, tenant: int) -> None:
        if self._gateway.is_ready:
            request.respond(200, [_JSON, *headers], b'{"status":"ready"}')
        else:
            raise ApiError("model_loading", "No model can answer yet.", retry_after_s=1)

    def _metrics(self, request: Request, headers: Headers, tenant: int) -> None:
        from smmf_core.http import prometheus  # at the first scrape only: it costs 10 MB

        text = prometheus.render(self._gateway.gathered_metrics())
        request.respond(200, [(b"content-type", prometheus.CONTENT_TYPE), *headers], text)

    def _models(self, request: Request, headers: Headers, tenant: int) -> None:
        entries = self._gateway.core.fleet.entries()
        request.respond(200, [_JSON, *headers], openai.render_models(entries))

    def _model(self, request: Request, headers: Headers, tenant: int) -> None:
        name = request.path.partition("/models/")[2]
        entry = self._gateway.core.fleet.find_adapter(name)[0].entry
        request.respond(200, [_JSON, *headers], openai.render_model(entry, name))

    # --- answers from a Worker ---

    def _chat(self, request: Request, headers: Headers, tenant: int) -> None:
        self._generate(request, headers, tenant, "chat")

    def _completion(self, request: Request, headers: Headers, tenant: int) -> None:
        self._generate(request, headers, tenant, "completion")

    def _embeddings(self, request: Request, headers: Headers, tenant: int) -> None:
        self._embed(request, headers, tenant, "embed")

    def _rerank(self, request: Request, headers: Headers, tenant: int) -> None:
        self._embed(request, headers, tenant, "rerank")

    def _generate(self, request: Request, headers: Headers, tenant: int, dialect: str) -> None:
        """Decode, check, queue. Everything that is wrong with the request is said here."""
        self._check_media_type(request)
        gateway, core = self._gateway, self._gateway.core
        metrics = gateway.metrics.model("")  # until it is known which
        try:
            decoded = openai.parse(dialect, request.body)
            model, adapter = core.fleet.find_adapter(decoded.model)
            metrics = gateway.metrics.model(model.name)
            self._check_model(model, "generate")
            parsed = openai.finish(decoded, model.entry.defaults)
            submit = parsed.submit
            submit.adapter = adapter
            number = next(self._ids)
            submit.request_id = headers[0][1].decode()
            submit.priority = _integer(request, b"x-smmf-priority", parsed.priority)
            renderer = openai.Renderer(
                parsed, f"{number:x}", gateway.wall_s, decoded.model, self._fingerprint
            )
            sink = (request, renderer, gateway.table, metrics, headers, dialect, gateway.on_end)
            answer = StreamAnswer(parsed, *sink) if parsed.stream else Answer(*sink)
            tokens = parsed.prompt_bytes // _BYTES_PER_TOKEN + 1
            answer.request = core.submit(
                submit, model, answer, parsed.n_choices, tokens, tenant, _timeout_s(request),
                gateway.now,
            )  # fmt: skip
        except ApiError as error:
            metrics.requests[dialect, error.status] += 1
            raise
        request.answer = answer
        gateway.opened(answer)

    def _embed(self, request: Request, headers: Headers, tenant: int, task: str) -> None:
        """As _generate, for vectors or scores.

        Such a request takes one slot, however many texts it has: its Worker takes texts from all
        requests in turn, so a long one does not keep others out, as it would by taking all slots.
        """
        self._check_media_type(request)
        gateway, core, route = self._gateway, self._gateway.core, _EMBED_ROUTES[task]
        metrics = gateway.metrics.model("")
        try:
            parse = openai.parse_embeddings if task == "embed" else openai.parse_rerank
            wanted = parse(request.body, f"{next(self._ids):x}")
            embed = wanted.embed
            model = core.fleet.find(embed.model)
            metrics = gateway.metrics.model(model.name)
            self._check_model(model, task)
            embed.request_id = headers[0][1].decode()
            embed.priority = _integer(request, b"x-smmf-priority", embed.priority)
            answer = Answer(
                request, wanted.renderer, gateway.table, metrics, headers, route, gateway.on_end
            )
            tokens = wanted.input_bytes // _BYTES_PER_TOKEN + 1
            answer.request = core.submit(
                embed, model, answer, 1, tokens, tenant, _timeout_s(request), gateway.now
            )
        except ApiError as error:
            metrics.requests[route, error.status] += 1
            raise
        request.answer = answer
        gateway.opened(answer)

    def _check_model(self, model: Model, task: str) -> None:
        """Raises ApiError: it is for something else, or out of service."""
        if model.entry.task != task:
            text = (
                f"The model '{model.name}' is not for this: it answers {_PATHS[model.entry.task]}."
            )
            raise ApiError("unsupported_value", text, "model")
        if (unavailable := self._gateway.core.fleet.unavailable(model)) is not None:
            raise unavailable

    def _check_media_type(self, request: Request) -> None:
        media_type = request.headers.get(b"content-type")
        if media_type is None:
            return
        kind = media_type.partition(b";")[0].strip().lower()
        if kind not in (b"application/json", b"text/plain", b"application/octet-stream", b""):
            text = f"The body must be application/json, not {kind[:60].decode('latin-1')}."
            raise ApiError("unsupported_media_type", text)


def _integer(request: Request, header: bytes, default: int) -> int:
    value = request.headers.get(header)
    if value is None:
        return default
    try:
        return max(-(1 << 31), min((1 << 31) - 1, int(value)))
    except ValueError:
        name = header.decode()
        raise ApiError("invalid_value", f"The header {name} must be an integer.", name) from None


def _timeout_s(request: Request) -> float | None:
    value = request.headers.get(b"x-smmf-timeout")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e7:
        text = "The header x-smmf-timeout must be a positive number of seconds."
        raise ApiError("invalid_value", text, "x-smmf-timeout")
    return seconds
