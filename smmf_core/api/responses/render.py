"""From a Worker's answer to the bytes of Responses, streaming or not.

An answer is items: thoughts, text, calls of tools. Both ways fill the same items; a stream tells of
each step by a numbered event. Owns which item is open; must not know HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from smmf_core.api.names import renamed
from smmf_core.api.openai import Parsed
from smmf_core.api.openai.logprobs import Entry, LogprobWriter, ends_broken
from smmf_core.api.responses.errors import NAMES, failure_code
from smmf_core.api.responses.output import (
    IN_PROGRESS,
    Called,
    CalledCustom,
    Event,
    Item,
    Said,
    Thought,
    called,
)
from smmf_core.api.responses.schema import ResponsesBody, ResponsesChat
from smmf_core.api.responses.settings import settings
from smmf_core.errors import ApiError
from smmf_core.messages import (
    CONTENT_FILTER,
    LENGTH,
    STOP,
    Choice,
    Result,
    TokenBatch,
    ToolDelta,
    Usage,
)

_COMPLETED, _INCOMPLETE, _FAILED = "completed", "incomplete", "failed"
_CUT = {LENGTH: "max_output_tokens", CONTENT_FILTER: "content_filter"}
_TEXT_DELTA = (
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta",'
    b'"sequence_number":%d,"item_id":"%b","output_index":%d,"content_index":0,"delta":%b,'
    b'"logprobs":[]}\n\n'
)
_encode = msgspec.json.encode

Object = dict[str, Any]


class Renderer:
    """One request's answer as bytes. `unique_id` is ASCII without quotes; `clock` gives the time as
    `created` does.

    A stream's events are numbered, so they are all made here: `frame` is None.
    """

    frame = None
    prefix = b""
    __slots__ = (
        "_clock",
        "_finished",
        "_head",
        "_number",
        "_open",
        "_reason",
        "_settings",
        "_tools",
        "_unique_id",
        "_waiting",
        "_writer",
    )

    def __init__(
        self,
        clock: Callable[[], int],
        parsed: Parsed,
        unique_id: str,
        created: int,
        model: str,
        fingerprint: str,
    ) -> None:
        chat = parsed.body
        assert isinstance(chat, ResponsesChat)
        assert isinstance(chat.asked, ResponsesBody)
        self._clock = clock
        self._unique_id = unique_id
        self._tools = chat.called
        self._head: Object = {
            "id": f"resp_{unique_id}", "object": "response", "created_at": created,
        }  # fmt: skip
        self._settings = _encode(settings(parsed, chat.asked, model))[1:]
        self._restart()

    # --- streaming ---

    def first(self) -> bytes:
        self._restart()
        begun = {"response": self._response(IN_PROGRESS, None)}
        return self._event("response.created", begun) + self._event("response.in_progress", begun)

    def admitted(self, prompt_tokens: int) -> bytes:
        """Nothing: the prompt's tokens are told at the end."""
        return b""

    def tokens(self, choice: int, batch: TokenBatch, usage: Usage | None) -> bytes:
        text, item = batch.text, self._open
        if batch.logprobs or not text or not isinstance(item, Said):
            entries = self._writer.entries(batch.logprobs, ends_broken(text))
            return b"".join(self._said(text, entries))
        item.add(text)  # the hot path: one more event of the open item
        self._number += 1
        place = len(self._finished)
        return _TEXT_DELTA % (self._number - 1, item.id.encode(), place, _encode(text))

    def reasoning(self, choice: int, text: str, usage: Usage | None) -> bytes:
        return b"".join(self._thought(text))

    def tool_deltas(self, choice: int, deltas: list[ToolDelta], usage: Usage | None) -> bytes:
        """What is new of calls: a call begins with its id."""
        return b"".join([part for delta in deltas for part in self._called(delta)])

    def stopped_by(self, stop: str) -> None:
        """Not told."""

    def choice_end(self, choice: int, reason: int, usage: Usage | None) -> bytes:
        """How it ended is told with the usage, in `tail`."""
        return b"".join(self._end(reason))

    def tail(self, usage: Usage) -> bytes:
        status = _INCOMPLETE if self._reason in _CUT else _COMPLETED
        return self._event(f"response.{status}", {"response": self._response(status, usage)})

    def error_event(self, error: ApiError) -> bytes:
        """The end of a stream that failed after its first byte: two events, as OpenAI has it."""
        named = renamed(error, NAMES)
        told = {"code": named.code, "message": named.message, "param": named.param}
        failed = {"response": self._response(_FAILED, None, error)}
        return self._event("error", told) + self._event("response.failed", failed)

    def keepalive(self) -> bytes:
        return self._event("response.in_progress", {"response": self._response(IN_PROGRESS, None)})

    # --- not streaming ---

    def response(self, result: Result, usage: Usage) -> bytes:
        """The whole answer as one JSON object."""
        (choice,) = result.choices
        for _ in self._fill(choice):
            pass
        status = _INCOMPLETE if self._reason in _CUT else _COMPLETED
        return bytes(self._response(status, usage))

    # --- inside ---

    def _restart(self) -> None:
        """Nothing of the answer has been sent."""
        self._number = 0  # of the next event
        self._open: Item | None = None
        self._finished: list[Object] = []
        self._reason = STOP
        self._writer = LogprobWriter()
        self._waiting: list[Entry] = []  # tokens whose text is still to come

    def _fill(self, choice: Choice) -> Iterator[bytes]:
        """The events of a whole answer: calls are where they came in its text."""
        yield from self._thought(choice.reasoning)
        entries = self._writer.entries(choice.logprobs or [], True)
        at = 0
        for call in choice.tool_calls:
            yield from self._said_part(choice.text[at : call.at], entries)
            at = call.at
            yield from self._called(ToolDelta(0, call.id, call.name, call.arguments))
        yield from self._said(choice.text[at:], entries)
        yield from self._end(choice.reason)

    def _said_part(self, text: str, entries: list[Entry]) -> Iterator[bytes]:
        """With the tokens that lie in this part, which are taken from all those that are left."""
        count = at = 0
        while count < len(entries) and (at := text.find(token := entries[count].token, at)) >= 0:
            at += len(token)
            count += 1
        yield from self._said(text, entries[:count])
        del entries[:count]

    def _thought(self, text: str) -> Iterator[bytes]:
        if text:
            if not isinstance(self._open, Thought):
                yield from self._begin(Thought(self._next_id()))
            assert isinstance(self._open, Thought)
            yield self._of_item(self._open.add(text))

    def _said(self, text: str, logprobs: list[Entry]) -> Iterator[bytes]:
        self._waiting += logprobs
        if text:
            if not isinstance(self._open, Said):
                yield from self._begin(Said(self._next_id()))
            assert isinstance(self._open, Said)
            said, self._waiting = self._waiting, []
            yield self._of_item(self._open.say(text, said))

    def _called(self, delta: ToolDelta) -> Iterator[bytes]:
        if delta.id:
            yield from self._begin(called(delta.id, delta.name, self._tools))
        if delta.arguments:
            assert isinstance(self._open, Called | CalledCustom)
            for event in self._open.add(delta.arguments):
                yield self._of_item(event)

    def _begin(self, item: Item) -> Iterator[bytes]:
        yield from self._close(_COMPLETED)
        self._open = item
        added = {"output_index": len(self._finished), "item": item.form(IN_PROGRESS)}
        yield self._event("response.output_item.added", added)
        for event in item.opening():
            yield self._of_item(event)

    def _close(self, status: str) -> Iterator[bytes]:
        item = self._open
        if item is None:
            return
        for event in item.closing():
            yield self._of_item(event)
        form, place = item.form(status), len(self._finished)
        yield self._event("response.output_item.done", {"output_index": place, "item": form})
        self._finished.append(form)
        self._open = None

    def _end(self, reason: int) -> Iterator[bytes]:
        """An answer that ends by itself has said something, if only an empty text."""
        self._reason = reason
        is_silent = isinstance(self._open, Thought | None) and not self._finished
        if is_silent and reason not in _CUT:
            yield from self._begin(Said(self._next_id()))
        if isinstance(self._open, Said):
            self._open.end(self._waiting)
        yield from self._close(_INCOMPLETE if reason in _CUT else _COMPLETED)

    def _next_id(self) -> str:
        """Of the item that comes after the open one."""
        return f"{self._unique_id}_{len(self._finished) + (self._open is not None)}"

    def _of_item(self, event: Event) -> bytes:
        assert self._open is not None
        place = {"item_id": self._open.id, "output_index": len(self._finished)}
        return self._event(f"response.{event[0]}", {**place, **event[1]})

    def _event(self, kind: str, fields: Object) -> bytes:
        body = _encode({"type": kind, "sequence_number": self._number, **fields})
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), body)

    def _response(
        self, status: str, usage: Usage | None, error: ApiError | None = None
    ) -> msgspec.Raw:
        reason = _CUT.get(self._reason) if status == _INCOMPLETE else None
        answer = {
            **self._head,
            "status": status,
            "completed_at": self._clock() if status == _COMPLETED else None,
            "error": error and _failure(error),
            "incomplete_details": reason and {"reason": reason},
            "output": self._finished,
            "usage": usage and _usage(usage),
        }
        return msgspec.Raw(_encode(answer)[:-1] + b"," + self._settings)


def _failure(error: ApiError) -> Object:
    return {"code": failure_code(error), "message": renamed(error, NAMES).message}


def _usage(usage: Usage) -> Object:
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.prompt + usage.completion,
    }
