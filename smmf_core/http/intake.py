"""From an HTTP request's body to a queued request: decode, check, find the model, submit.

Everything that is wrong with a request is said here, before anything is queued. Owns no request
state; must not know paths or frame streams.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from functools import partial
from typing import Protocol

from smmf_core import __version__
from smmf_core.api import anthropic, openai, responses
from smmf_core.api.dialect import Dialect, Load
from smmf_core.api.openai import Require, Wanted
from smmf_core.api.openai.images import no_vision, shows_images
from smmf_core.api.openai.schema import Body, ChatBody
from smmf_core.control_messages import ModelEntry
from smmf_core.errors import ApiError
from smmf_core.http.rate_lines import tell_left
from smmf_core.http.request import Request
from smmf_core.http.whole import Ask
from smmf_core.messages import Image, Tokenize, Usage
from smmf_core.metrics import Metrics
from smmf_core.native._frames import StreamTable
from smmf_core.router.auto import check, choose
from smmf_core.router.call import JSON, Call, End
from smmf_core.router.core import Open, RouterCore
from smmf_core.router.fleet import Model
from smmf_core.router.keys import Key, KeyRing
from smmf_core.router.response import Answer
from smmf_core.router.stream_answer import StreamAnswer

AUTO = "auto"
_TEXT_TASK = "generate"  # where any would do
_VISION = "vision"  # the capability
_PRIORITY, _TIMEOUT = b"x-smmf-priority", b"x-smmf-timeout"
_BYTES_PER_TOKEN = 4  # an estimate, until the Worker's Admit tells
_PATHS = {
    "generate": "/v1/chat/completions, /v1/completions, /v1/responses and /v1/messages",
    "embed": "/v1/embeddings and /v1/score",
    "rerank": "/v1/rerank and /v1/score",
}
_MESSAGES = Dialect("messages", anthropic.parse, anthropic.Renderer, "chat")
_JSON_TYPE = b"application/json"
_CURL_TYPE = b"application/x-www-form-urlencoded"  # of `curl -d`, as Ollama's examples send JSON
_BODY_TYPES = frozenset({_JSON_TYPE, b"text/plain", b"application/octet-stream", b""})


class Gateway(Protocol):
    """What the HTTP side needs of the Router's shell."""

    metrics: Metrics
    keys: KeyRing

    @property
    def table(self) -> StreamTable: ...
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
    def render_aside(self, answer: Answer, render: Callable[[], bytes]) -> None: ...
    def record(self, call: Call, request: Open | None, end: End) -> None: ...
    def gathered_metrics(self) -> Metrics: ...


class Intake:
    """The requests that a Worker answers."""

    def __init__(
        self, gateway: Gateway, make_renderer: type[openai.Renderer] = openai.Renderer
    ) -> None:
        self._gateway = gateway
        parse_chat, parse_text = (
            partial(openai.parse, d) for d in (openai.CHAT, openai.COMPLETION)
        )
        self._chat = Dialect("chat", parse_chat, make_renderer, "chat")
        self._completion = Dialect("completion", parse_text, make_renderer, "completion")
        respond = partial(responses.Renderer, lambda: gateway.wall_s)
        self._responses = Dialect("responses", responses.parse, respond, "chat")
        self._fingerprint = f"smmf-{__version__}"
        self._ids = itertools.count(int.from_bytes(os.urandom(6)))

    def chat(self, request: Request, call: Call) -> None:
        self._generate(request, call, self._chat)

    def completion(self, request: Request, call: Call) -> None:
        self._generate(request, call, self._completion)

    def responses(self, request: Request, call: Call) -> None:
        self._generate(request, call, self._responses)

    def messages(self, request: Request, call: Call) -> None:
        self._generate(request, call, _MESSAGES)

    def generate(self, dialect: Dialect, request: Request, call: Call) -> None:
        self._generate(request, call, dialect)

    def whole(self, ask: Ask, request: Request, call: Call) -> None:
        """What is answered whole: vectors, scores, tokens.

        Such a request takes one slot, however many texts it has: its Worker takes texts from all
        requests in turn, so a long one does not keep others out, as it would by taking all slots.
        """
        self._begin(request, call, ask.route)
        wanted = ask.parse(request.body, f"{next(self._ids):x}", self._gateway.wall_s)
        capability = ask.capability or ask.task or "completion"
        self._ask(request, call, wanted, ask.task, capability, ask.other_task)

    # --- inside ---

    def _generate(self, request: Request, call: Call, dialect: Dialect) -> None:
        gateway, headers = self._gateway, request.headers
        self._begin(request, call, dialect.route)
        decoded = dialect.parse(request.body)
        if not isinstance(decoded, Body):
            self._load(request, call, dialect, decoded)
            return
        call.model = decoded.model
        call.stream = decoded.stream is True
        require = openai.parse_require(decoded.smmf)
        capability = dialect.capability
        if call.model == AUTO and isinstance(decoded, ChatBody) and shows_images(decoded.messages):
            capability = _VISION
        model, adapter, name = self._find(call, require, "generate", capability)
        parsed = openai.finish(decoded, model.entry.defaults)
        submit = parsed.submit
        _check_images(submit.images, model.entry)
        submit.adapter = adapter
        submit.request_id = call.request_id
        if _PRIORITY in headers:
            submit.priority = _priority(headers[_PRIORITY])
        timeout_s = _timeout_s(headers[_TIMEOUT]) if _TIMEOUT in headers else None
        renderer = dialect.renderer(
            parsed, f"{next(self._ids):x}", gateway.wall_s, name, self._fingerprint
        )
        answer = (
            StreamAnswer(parsed, call, renderer, gateway, dialect.stream_type)
            if parsed.stream
            else Answer(call, renderer, gateway)
        )
        tokens = parsed.prompt_bytes // _BYTES_PER_TOKEN + 1
        if call.key is not None:
            self._admit(call, call.key, tokens + (parsed.max_tokens or 0) * parsed.n_choices)
        answer.request = gateway.core.submit(
            submit, model, answer, parsed.n_choices, tokens, call.tenant, timeout_s,
            call.received_at,
        )  # fmt: skip
        self._accepted(request, answer, model, parsed.keep_alive_s)

    def _ask(
        self, request: Request, call: Call, wanted: Wanted, task: str, capability: str,
        other_task: str = "",
    ) -> None:  # fmt: skip
        gateway, headers = self._gateway, request.headers
        submit = wanted.submit
        call.model = submit.model
        images = submit.images if isinstance(submit, Tokenize) else []
        if images:
            capability = _VISION
        model, _, wanted.renderer.model = self._find(
            call, wanted.require, task, capability, other_task
        )
        _check_images(images, model.entry)
        submit.request_id = call.request_id
        if _PRIORITY in headers:
            submit.priority = _priority(headers[_PRIORITY])
        timeout_s = _timeout_s(headers[_TIMEOUT]) if _TIMEOUT in headers else None
        answer = Answer(call, wanted.renderer, gateway)
        tokens = wanted.input_bytes // _BYTES_PER_TOKEN + 1
        if call.key is not None:
            self._admit(call, call.key, tokens)
        answer.request = gateway.core.submit(
            submit, model, answer, 1, tokens, call.tenant, timeout_s, call.received_at
        )
        self._accepted(request, answer, model, wanted.keep_alive_s)

    def _load(self, request: Request, call: Call, dialect: Dialect, load: Load) -> None:
        """Nothing is asked of the model: it is loaded by a request that costs a Worker nothing, or
        goes as soon as it has nothing to do."""
        gateway = self._gateway
        if load.keep_alive_s != 0:
            wanted = load.wanted(gateway.wall_s)
            self._ask(request, call, wanted, "generate", dialect.capability)
            return
        model, adapter = gateway.core.fleet.find_adapter(load.model)
        call.check_model(model.entry, adapter)
        model.keep(0.0)
        body = load.body(load.model, gateway.wall_s, "unload")
        call.model = call.base_model = model.name
        gateway.record(call, None, End(gateway.now, 200, "", Usage(0, 0)))
        tell_left(call, gateway.wall_s)
        request.respond(200, JSON + call.timed(gateway.now), body)

    def _begin(self, request: Request, call: Call, route: str) -> None:
        call.route = route
        call.is_for_worker = True
        media_type = request.headers.get(b"content-type", _JSON_TYPE)
        is_curl = media_type == _CURL_TYPE and route.startswith("ollama")
        if media_type != _JSON_TYPE and not is_curl:
            _check_media_type(media_type)

    def _admit(self, call: Call, key: Key, tokens: int) -> None:
        """Take so many tokens of the key's limits, the last thing before it is queued. Raises
        ApiError 429."""
        now_s = self._gateway.wall_s
        call.admission = key.take(call.model, tokens, now_s)
        tell_left(call, now_s)

    def _accepted(
        self, request: Request, answer: Answer, model: Model, keep_alive_s: float | None
    ) -> None:
        if keep_alive_s is not None:
            model.keep(keep_alive_s)
        request.answer = answer
        self._gateway.opened(answer)

    def _find(
        self, call: Call, require: Require | None, task: str, capability: str, other_task: str = ""
    ) -> tuple[Model, str, str]:
        """The model, which of its adapters, and what the answer calls it.

        Raises ApiError: there is none, it is not for this key or for something else, or out of
        service.
        """
        fleet, name = self._gateway.core.fleet, call.model
        if name == AUTO and not fleet.has(AUTO):
            wanted, adapter = task or _TEXT_TASK, ""
            try:
                model = choose(fleet, wanted, capability, require, call.may_ask)
            except ApiError:
                if not other_task:
                    raise
                model = choose(fleet, other_task, other_task, require, call.may_ask)
            name = model.name
        else:
            model, adapter = fleet.find_adapter(name)
        call.model = f"{model.name}:{adapter}" if adapter else model.name
        call.base_model = model.name
        call.metrics = self._gateway.metrics.model(model.name)
        if call.key is not None:
            call.key.check_model(model.entry, adapter)
        if task and model.entry.task not in (task, other_task):
            answers = _PATHS[model.entry.task]
            text = f"The model '{model.name}' is not for this: it answers {answers}."
            raise ApiError("unsupported_value", text, "model")
        if require is not None:
            check(model, require)
        if (unavailable := fleet.unavailable(model)) is not None:
            raise unavailable
        return model, adapter, name


def _check_images(images: list[Image], entry: ModelEntry) -> None:
    """Of a model that was never loaded, its Worker knows. Raises ApiError (400)."""
    if images and entry.capabilities and _VISION not in entry.capabilities:
        raise no_vision(images[0])


def _check_media_type(given: bytes) -> None:
    kind = given.partition(b";")[0].strip().lower()
    if kind not in _BODY_TYPES:
        text = f"The body must be application/json, not {kind[:60].decode('latin-1')}."
        raise ApiError("unsupported_media_type", text)


def _priority(given: bytes) -> int:
    try:
        return max(-(1 << 31), min((1 << 31) - 1, int(given)))
    except ValueError:
        name = _PRIORITY.decode()
        raise ApiError("invalid_value", f"The header {name} must be an integer.", name) from None


def _timeout_s(given: bytes) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e7:
        text = "The header x-smmf-timeout must be a positive number of seconds."
        raise ApiError("invalid_value", text, "x-smmf-timeout")
    return seconds
