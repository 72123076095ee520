"""The items that an answer consists of, each filled piece by piece.

Owns their forms and the events that fill them, each (what follows `response.`, fields); must not
number events nor decide which item is next. An answer that does not stream fills the same items.
"""

from __future__ import annotations

from typing import Any, Protocol

from smmf_core.api.openai.logprobs import Entry
from smmf_core.api.responses.custom import InputReader
from smmf_core.api.responses.tools import Tools

Object = dict[str, Any]
Event = tuple[str, Object]
IN_PROGRESS = "in_progress"


class Item(Protocol):
    @property
    def id(self) -> str: ...
    def form(self, status: str) -> Object:
        """The item with what it holds so far."""

    def opening(self) -> list[Event]: ...
    def closing(self) -> list[Event]: ...


class _Spoken:
    """What an item with one part of text is."""

    prefix = part_type = text_events = ""

    def __init__(self, unique_id: str) -> None:
        self.id = f"{self.prefix}_{unique_id}"
        self._texts: list[str] = []

    def opening(self) -> list[Event]:
        return [("content_part.added", {"content_index": 0, "part": self._part("")})]

    def add(self, text: str) -> Event:
        self._texts.append(text)
        return f"{self.text_events}.delta", {"content_index": 0, "delta": text}

    def closing(self) -> list[Event]:
        text = "".join(self._texts)
        return [
            (f"{self.text_events}.done", {"content_index": 0, "text": text}),
            ("content_part.done", {"content_index": 0, "part": self._part(text)}),
        ]

    def _part(self, text: str) -> Object:
        return {"type": self.part_type, "text": text}

    def _content(self, status: str) -> list[Object]:
        return [] if status == IN_PROGRESS else [self._part("".join(self._texts))]


class Thought(_Spoken):
    """What the model thought."""

    prefix, part_type, text_events = "rs", "reasoning_text", "reasoning_text"

    def form(self, status: str) -> Object:
        content = self._content(status)
        return {
            "id": self.id, "type": "reasoning", "status": status, "summary": [], "content": content,
        }  # fmt: skip


class Said(_Spoken):
    """What it said."""

    prefix, part_type, text_events = "msg", "output_text", "output_text"

    def __init__(self, unique_id: str) -> None:
        super().__init__(unique_id)
        self._logprobs: list[Entry] = []

    def say(self, text: str, logprobs: list[Entry]) -> Event:
        kind, fields = self.add(text)
        self._logprobs += logprobs
        return kind, {**fields, "logprobs": logprobs}

    def end(self, logprobs: list[Entry]) -> None:
        """Tokens that no text came of."""
        self._logprobs += logprobs

    def closing(self) -> list[Event]:
        done, *rest = super().closing()
        return [(done[0], {**done[1], "logprobs": self._logprobs}), *rest]

    def form(self, status: str) -> Object:
        content = self._content(status)
        return {
            "id": self.id, "type": "message", "status": status, "role": "assistant",
            "content": content,
        }  # fmt: skip

    def _part(self, text: str) -> Object:
        logprobs = self._logprobs if text else []
        return {"type": self.part_type, "text": text, "annotations": [], "logprobs": logprobs}


class Called:
    """A call of a function."""

    def __init__(self, call_id: str, name: str, namespace: str | None) -> None:
        self.id = f"fc_{call_id.removeprefix('call_')}"
        self._name = name
        self._names = _names(call_id, name, namespace)
        self._pieces: list[str] = []

    def opening(self) -> list[Event]:
        return []

    def add(self, arguments: str) -> list[Event]:
        self._pieces.append(arguments)
        return [("function_call_arguments.delta", {"delta": arguments})]

    def closing(self) -> list[Event]:
        done = {"name": self._name, "arguments": "".join(self._pieces)}
        return [("function_call_arguments.done", done)]

    def form(self, status: str) -> Object:
        return {
            "id": self.id, "type": "function_call", "status": status, **self._names,
            "arguments": "".join(self._pieces),
        }  # fmt: skip


class CalledCustom:
    """A call of a custom tool: its text is read out of the arguments."""

    def __init__(self, call_id: str, name: str, namespace: str | None) -> None:
        self.id = f"ctc_{call_id.removeprefix('call_')}"
        self._names = _names(call_id, name, namespace)
        self._reader = InputReader()
        self._pieces: list[str] = []

    def opening(self) -> list[Event]:
        return []

    def add(self, arguments: str) -> list[Event]:
        return self._add(self._reader.push(arguments))

    def closing(self) -> list[Event]:
        rest = self._add(self._reader.finish())
        return [*rest, ("custom_tool_call_input.done", {"input": "".join(self._pieces)})]

    def form(self, status: str) -> Object:
        return {
            "id": self.id, "type": "custom_tool_call", "status": status, **self._names,
            "input": "".join(self._pieces),
        }  # fmt: skip

    def _add(self, text: str) -> list[Event]:
        if not text:
            return []
        self._pieces.append(text)
        return [("custom_tool_call_input.delta", {"delta": text})]


def called(call_id: str, function: str, tools: Tools) -> Called | CalledCustom:
    """A call of what the client knows by its own names."""
    tool = tools.get(function)
    if tool is None:
        return Called(call_id, function, None)
    kind = CalledCustom if tool.kind == "custom" else Called
    return kind(call_id, tool.name, tool.namespace)


def _names(call_id: str, name: str, namespace: str | None) -> Object:
    names = {"call_id": call_id, "name": name}
    return names if namespace is None else {**names, "namespace": namespace}
