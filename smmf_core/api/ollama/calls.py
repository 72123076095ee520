"""Calls of tools as Ollama's clients know them: whole, their arguments an object.

Owns the collecting of a stream's pieces. A call that was cut, or whose arguments are no object, is
no call.
"""

from __future__ import annotations

from typing import Any

import msgspec

from smmf_core.messages import ToolCall, ToolDelta

Object = dict[str, Any]


class CallCollector:
    """One answer's calls, one after the other."""

    __slots__ = ("_arguments", "_id", "_index", "_name")

    def __init__(self) -> None:
        self._id = self._name = ""
        self._index = -1
        self._arguments: list[str] = []

    def add(self, deltas: list[ToolDelta]) -> list[Object]:
        """Returns the calls that are whole now."""
        whole: list[Object] = []
        for delta in deltas:
            if delta.id:
                whole += self.flush()
                self._id, self._name, self._index = delta.id, delta.name, delta.index
            self._arguments.append(delta.arguments)
        return whole

    def flush(self) -> list[Object]:
        """The last call, once no more of it can come."""
        call = ToolCall(self._id, self._name, "".join(self._arguments))
        self._id = ""
        self._arguments.clear()
        found = _call(self._index, call) if call.id else None
        return [found] if found else []


def whole_calls(calls: list[ToolCall]) -> list[Object]:
    found = [_call(index, call) for index, call in enumerate(calls)]
    return [call for call in found if call]


def _call(index: int, call: ToolCall) -> Object | None:
    try:
        arguments = msgspec.json.decode(call.arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        return None
    if not isinstance(arguments, dict):
        return None
    function = {"index": index, "name": call.name, "arguments": arguments}
    return {"id": call.id, "function": function}
