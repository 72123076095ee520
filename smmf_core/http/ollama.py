"""The paths of Ollama's API on the inference port, and the answers that need no Worker.

Owns their table; requests for a Worker are http.intake's. Must not know what bodies look like.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from smmf_core.api import ollama
from smmf_core.api.dialect import Dialect
from smmf_core.errors import ApiError
from smmf_core.http.intake import Gateway, Intake
from smmf_core.http.request import Request
from smmf_core.http.whole import Ask
from smmf_core.router.call import Call

Act = Callable[[Request, Call], None]
Respond = Callable[[Request, Call, bytes], None]

_LINES = b"application/x-ndjson"
_CHAT = Dialect("ollama_chat", ollama.parse_chat, ollama.ChatRenderer, "chat", _LINES)
_GENERATE = Dialect(
    "ollama_generate", ollama.parse_generate, ollama.GenerateRenderer, "chat", _LINES
)
_EMBED = Ask("ollama_embed", "embed", ollama.parse_embed)
_EMBEDDINGS = Ask("ollama_embed", "embed", ollama.parse_embeddings)
_OPERATORS = {  # what is done on the server's machine, not over this API
    "/api/push": ("POST", "Models are not pushed from here."),
    "/api/create": ("POST", "Models are registered on the server: 'smmf add'."),
    "/api/copy": ("POST", "Models are registered on the server: 'smmf add', or 'smmf alias'."),
    "/api/delete": ("DELETE", "Models are removed on the server: 'smmf rm'."),
}


class OllamaRoutes:
    """`respond` sends a whole JSON answer, and says so in the log."""

    def __init__(self, gateway: Gateway, intake: Intake, respond: Respond) -> None:
        self._gateway = gateway
        self._respond = respond
        self.table: dict[str, tuple[str, Act]] = {
            "/": ("GET", self._root),
            "/api/version": ("GET", self._version),
            "/api/tags": ("GET", self._tags),
            "/api/ps": ("GET", self._ps),
            "/api/show": ("POST", self._show),
            "/api/pull": ("POST", self._pull),
            "/api/chat": ("POST", partial(intake.generate, _CHAT)),
            "/api/generate": ("POST", partial(intake.generate, _GENERATE)),
            "/api/embed": ("POST", partial(intake.whole, _EMBED)),
            "/api/embeddings": ("POST", partial(intake.whole, _EMBEDDINGS)),
        }
        for path, (method, why) in _OPERATORS.items():
            self.table[path] = (method, partial(self._refuse, why))

    def _root(self, request: Request, call: Call) -> None:
        """What clients look for to know that there is a server."""
        lines = b"content-type: text/plain; charset=utf-8\r\n" + call.headers
        request.respond(200, lines, b"Ollama is running")

    def _version(self, request: Request, call: Call) -> None:
        self._respond(request, call, b'{"version":"%b"}' % ollama.API_VERSION.encode())

    def _tags(self, request: Request, call: Call) -> None:
        entries, key = self._gateway.core.fleet.entries(), call.key
        shown = None if key is None else {name for e in entries for name in key.names(e)}
        self._respond(request, call, ollama.render_tags(entries, shown))

    def _ps(self, request: Request, call: Call) -> None:
        models = self._gateway.core.fleet.models
        ordered = [models[index] for index in sorted(models)]
        shown = [model for model in ordered if model.is_loaded and call.may_ask(model.entry)]
        loaded = [(model.entry, model.keep_alive_s) for model in shown]
        self._respond(request, call, ollama.render_ps(loaded, self._gateway.wall_s))

    def _show(self, request: Request, call: Call) -> None:
        name = ollama.find_name(request.body)
        model, adapter = self._gateway.core.fleet.find_adapter(name)
        call.check_model(model.entry, adapter)
        self._respond(request, call, ollama.render_show(model.entry, name))

    def _pull(self, request: Request, call: Call) -> None:
        """Clients that make sure of their model need not: one that is here is."""
        name = ollama.find_name(request.body)
        try:
            model, adapter = self._gateway.core.fleet.find_adapter(name)
        except ApiError as unknown:
            text = f"{unknown.message} Models are added on the server: 'smmf add'."
            raise ApiError(unknown.code, text, unknown.param) from None
        call.check_model(model.entry, adapter)
        self._respond(request, call, b'{"status":"success"}\n')

    def _refuse(self, why: str, request: Request, call: Call) -> None:
        raise ApiError("not_implemented", why)
