"""Which path does what on the inference port.

Owns paths, keys and CORS, and answers what needs no Worker; what needs one is http.intake's. Must
not decode bodies.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from smmf_core.api import openai
from smmf_core.config import ServerConfig
from smmf_core.errors import ApiError
from smmf_core.http.intake import Gateway, Intake
from smmf_core.http.request import Request, error_form
from smmf_core.http.whole import ASKS, COHERE
from smmf_core.messages import Usage
from smmf_core.router.call import JSON, Call, End

Act = Callable[[Request, Call], None]

_PREFIXES = ("/v1", "/api/v1", "")  # OpenAI's, DB-GPT's, llama.cpp's
_PROBES = frozenset({"/health", "/v1/health", "/ready", "/metrics"})  # no key, no line in the log
_SHOWN_PATH = 100
_CORS_MAX_AGE_S = 600
_CORS = (
    b"access-control-allow-origin: %b\r\n"
    b"access-control-expose-headers: x-request-id, request-id, x-smmf-instance, retry-after\r\n"
    b"vary: origin\r\n"
)
_PREFLIGHT = (
    b"access-control-allow-methods: GET, POST, OPTIONS\r\n"
    b"access-control-allow-headers: %b\r\n"
    b"access-control-max-age: %d\r\n"
)


class Routes:
    """The HTTP application of a Router (http.protocol.Application)."""

    def __init__(
        self, gateway: Gateway, config: ServerConfig, intake: Intake | None = None
    ) -> None:
        self._gateway = gateway
        self._keys = {key.encode(): n for n, key in enumerate(config.server.api_keys, start=1)}
        self._origins = frozenset(origin.encode() for origin in config.server.cors_origins)
        intake = intake or Intake(gateway)
        self._routes: dict[str, tuple[str, Act]] = {
            "/health": ("GET", self._health),
            "/v1/health": ("GET", self._health),
            "/ready": ("GET", self._ready),
            "/metrics": ("GET", self._metrics),
        }
        for prefix in _PREFIXES:
            self._routes[f"{prefix}/models"] = ("GET", self._models)
            self._routes[f"{prefix}/chat/completions"] = ("POST", intake.chat)
            self._routes[f"{prefix}/completions"] = ("POST", intake.completion)
            self._routes[f"{prefix}/messages"] = ("POST", intake.messages)
            for path, ask in ASKS.items():
                self._routes[prefix + path] = ("POST", partial(intake.whole, ask))
        for path, ask in COHERE.items():
            self._routes[path] = ("POST", partial(intake.whole, ask))

    # --- Application ---

    def on_request(self, request: Request) -> None:
        request_id = request.id()
        headers = b"x-request-id: %b\r\n" % request_id
        origin = request.headers.get(b"origin")
        if origin is not None and (origin in self._origins or b"*" in self._origins):
            headers += _CORS % origin
        errors = error_form(request.target)
        if errors is not None:
            headers += errors.headers(request_id)
        call = Call(request, request_id, headers, self._gateway.now, errors)
        try:
            self._route(request, call)
        except ApiError as error:
            self._refuse(request, call, error)

    def on_disconnect(self, request: Request) -> None:
        if request.answer is not None:
            self._gateway.disconnected(request.answer)

    def on_writable(self, request: Request) -> None:
        if request.answer is not None:
            self._gateway.writable(request.answer)

    # --- inside ---

    def _route(self, request: Request, call: Call) -> None:
        """1 CORS preflight; 2 a fixed path; 3 a model's own path; 4 nothing."""
        path, method = request.path, request.method
        if method == "OPTIONS":
            self._preflight(request, call)
            return
        found = self._routes.get(path) or self._model_route(path)
        if found is None:
            raise ApiError("unknown_url", f"Invalid URL ({method} {path[:_SHOWN_PATH]})")
        allowed, act = found
        if method != allowed and not (method == "HEAD" and allowed == "GET"):
            call.headers += b"allow: %b\r\n" % allowed.encode()
            raise ApiError("method_not_supported", f"{path} takes {allowed}, not {method[:20]}.")
        if self._keys and path not in _PROBES:
            call.tenant = self._tenant(request)
        act(request, call)

    def _model_route(self, path: str) -> tuple[str, Act] | None:
        """`/v1/models/{id}`, where ids may hold slashes and colons."""
        is_model = any(path.startswith(f"{prefix}/models/") for prefix in _PREFIXES)
        return ("GET", self._model) if is_model else None

    def _preflight(self, request: Request, call: Call) -> None:
        wanted = request.headers.get(b"access-control-request-headers", b"*")
        request.respond(204, call.headers + _PREFLIGHT % (wanted, _CORS_MAX_AGE_S), b"")

    def _tenant(self, request: Request) -> int:
        """The number of the request's key, from 1. Raises ApiError 401."""
        given = request.headers.get(b"authorization", b"")
        scheme, _, key = given.partition(b" ")
        if scheme.lower() != b"bearer":
            key = request.headers.get(b"x-api-key") or request.headers.get(b"api-key") or b""
        tenant = self._keys.get(key.strip())
        if tenant is None:
            what = "Incorrect API key provided." if key else "You did not provide an API key."
            raise ApiError("invalid_api_key", what)
        return tenant

    def _refuse(self, request: Request, call: Call, error: ApiError) -> None:
        if call.route:  # it was for a Worker, of a model that may not be known
            metrics = call.metrics or self._gateway.metrics.model("")
            metrics.requests[call.route, call.status(error)] += 1
        self._record(request, call, call.status(error), error.code)
        call.refuse(call.headers, error)

    def _record(self, request: Request, call: Call, status: int, finish: str) -> None:
        """The end of a request that no Worker has had."""
        path = request.path
        if path not in _PROBES:
            call.route = call.route or path[:_SHOWN_PATH]
            self._gateway.record(call, None, End(self._gateway.now, status, finish, Usage(0, 0)))

    # --- answers without a Worker ---

    def _respond(self, request: Request, call: Call, body: bytes) -> None:
        self._record(request, call, 200, "")
        request.respond(200, JSON + call.headers, body)

    def _health(self, request: Request, call: Call) -> None:
        self._respond(request, call, b'{"status":"ok"}')

    def _ready(self, request: Request, call: Call) -> None:
        if not self._gateway.is_ready:
            raise ApiError("model_loading", "No model can answer yet.", retry_after_s=1)
        self._respond(request, call, b'{"status":"ready"}')

    def _metrics(self, request: Request, call: Call) -> None:
        from smmf_core.http import prometheus  # at the first scrape only: it costs 10 MB

        text = prometheus.render(self._gateway.gathered_metrics())
        kind = b"content-type: %b\r\n" % prometheus.CONTENT_TYPE
        request.respond(200, kind + call.headers, text)

    def _models(self, request: Request, call: Call) -> None:
        entries = self._gateway.core.fleet.entries()
        self._respond(request, call, openai.render_models(entries))

    def _model(self, request: Request, call: Call) -> None:
        name = request.path.partition("/models/")[2]
        entry = self._gateway.core.fleet.find_adapter(name)[0].entry
        self._respond(request, call, openai.render_model(entry, name))
