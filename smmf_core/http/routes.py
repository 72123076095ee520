"""Which path does what on the inference port.

Owns paths, keys and CORS, and answers what needs no Worker; what needs one is http.intake's. Must
not decode bodies.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from smmf_core.api import anthropic, openai, responses
from smmf_core.config import ServerConfig
from smmf_core.errors import ApiError
from smmf_core.http.cors import Cors
from smmf_core.http.intake import Gateway, Intake
from smmf_core.http.ollama import OllamaRoutes
from smmf_core.http.rate_lines import tell_left
from smmf_core.http.request import Request, error_form
from smmf_core.http.whole import ASKS, COHERE
from smmf_core.messages import Usage
from smmf_core.router.call import JSON, Call, End

Act = Callable[[Request, Call], None]

_PREFIXES = ("/v1", "/api/v1", "")  # OpenAI's, DB-GPT's, llama.cpp's
# no key, no line in the log
_PROBES = frozenset({"/", "/health", "/v1/health", "/ready", "/metrics", "/openapi.json"})
_SHOWN_PATH = 100
_ALLOW = {"GET": b"allow: GET, HEAD, OPTIONS\r\n", "POST": b"allow: POST, OPTIONS\r\n"}
_ALLOW["DELETE"] = b"allow: DELETE, OPTIONS\r\n"


class Routes:
    """The HTTP application of a Router (http.protocol.Application)."""

    def __init__(
        self, gateway: Gateway, config: ServerConfig, intake: Intake | None = None
    ) -> None:
        self._gateway = gateway
        self._cors = Cors(config.server.cors_origins)
        intake = intake or Intake(gateway)
        self._routes: dict[str, tuple[str, Act]] = {
            "/health": ("GET", self._health),
            "/v1/health": ("GET", self._health),
            "/ready": ("GET", self._ready),
            "/metrics": ("GET", self._metrics),
            "/openapi.json": ("GET", self._describe),
        }
        for prefix in _PREFIXES:
            self._routes[f"{prefix}/models"] = ("GET", self._models)
            self._routes[f"{prefix}/chat/completions"] = ("POST", intake.chat)
            self._routes[f"{prefix}/completions"] = ("POST", intake.completion)
            self._routes[f"{prefix}/responses"] = ("POST", intake.responses)
            self._routes[f"{prefix}/messages"] = ("POST", intake.messages)
            for path, ask in ASKS.items():
                self._routes[prefix + path] = ("POST", partial(intake.whole, ask))
        for path, ask in COHERE.items():
            self._routes[path] = ("POST", partial(intake.whole, ask))
        self._routes |= OllamaRoutes(gateway, intake, self._respond).table

    # --- Application ---

    def on_request(self, request: Request) -> None:
        request_id = request.id()
        headers = b"x-request-id: %b\r\n" % request_id
        if b"origin" in request.headers:
            headers += self._cors.lines(request)
        errors = error_form(request.target, request.headers)
        if errors is not None:
            headers += errors.headers(request_id)
        call = Call(request, request_id, headers, self._gateway.now, errors)
        try:
            self._route(request, call)
        except ApiError as error:
            self._refuse(request, call, error)
        except Exception:  # a bug; what was taken of a key's limits is given back all the same
            self._record(request, call, 500, "internal_error")
            raise

    def lines(self, request: Request) -> bytes:
        return self._cors.lines(request) if b"origin" in request.headers else b""

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
            request.respond(204, call.headers + self._cors.preflight(request), b"")
            return
        found = self._routes.get(path) or self._model_route(path)
        if found is None:
            unknown = ApiError("unknown_url", f"Invalid URL ({method} {path[:_SHOWN_PATH]})")
            raise responses.not_stored(path) or unknown
        allowed, act = found
        if method != allowed and not (method == "HEAD" and allowed == "GET"):
            call.headers += _ALLOW[allowed]
            raise ApiError("method_not_supported", f"{path} takes {allowed}, not {method[:20]}.")
        if self._gateway.keys.is_needed and path not in _PROBES:
            self._identify(request, call)
        act(request, call)

    def _model_route(self, path: str) -> tuple[str, Act] | None:
        """`/v1/models/{id}`, where ids may hold slashes and colons."""
        is_model = any(path.startswith(f"{prefix}/models/") for prefix in _PREFIXES)
        return ("GET", self._model) if is_model else None

    def _identify(self, request: Request, call: Call) -> None:
        """Whose request it is, and whether that key's roles let it in. Raises ApiError."""
        key = call.key = self._gateway.keys.find(_presented(request), self._gateway.wall_s)
        call.tenant = key.tenant
        key.check_method(request.method)

    def _refuse(self, request: Request, call: Call, error: ApiError) -> None:
        if call.route:  # it was for a Worker, of a model that may not be known
            metrics = call.metrics or self._gateway.metrics.model("")
            metrics.requests[call.route, call.status(error)] += 1
        self._record(request, call, call.status(error), error.code)
        tell_left(call, self._gateway.wall_s)
        call.refuse(call.timed(self._gateway.now), error)

    def _record(self, request: Request, call: Call, status: int, finish: str) -> None:
        """The end of a request that no Worker has had."""
        path = request.path
        if path not in _PROBES:
            call.route = call.route or path[:_SHOWN_PATH]
            self._gateway.record(call, None, End(self._gateway.now, status, finish, Usage(0, 0)))

    # --- answers without a Worker ---

    def _respond(self, request: Request, call: Call, body: bytes) -> None:
        self._record(request, call, 200, "")
        tell_left(call, self._gateway.wall_s)
        request.respond(200, JSON + call.timed(self._gateway.now), body)

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

    def _describe(self, request: Request, call: Call) -> None:
        from smmf_core.api.describe import document  # at the first question only

        self._respond(request, call, document())

    def _models(self, request: Request, call: Call) -> None:
        entries, key = self._gateway.core.fleet.entries(), call.key
        shown = None if key is None else {name for e in entries for name in key.names(e)}
        form = anthropic.models if anthropic.models.HEADER in request.headers else openai
        self._respond(request, call, form.render_models(entries, shown))

    def _model(self, request: Request, call: Call) -> None:
        name = request.path.partition("/models/")[2]
        model, adapter = self._gateway.core.fleet.find_adapter(name)
        call.check_model(model.entry, adapter)
        form = anthropic.models if anthropic.models.HEADER in request.headers else openai
        self._respond(request, call, form.render_model(model.entry, name))


def _presented(request: Request) -> bytes:
    """The key as OpenAI's clients send it, as Anthropic's do, or as Azure's."""
    headers = request.headers
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer" or not key:
        key = headers.get(b"x-api-key") or headers.get(b"api-key") or b""
    return key.strip()
