"""Messages whose texts come piece by piece, as turns in a row are one message.

Owns their joining, which is done once, at the end: to join at each piece would take the square of
their number, while a Router serves nobody else. Must not know any API's items.
"""

from __future__ import annotations

from typing import Any

from smmf_core.api.openai.images import Content, joined

Object = dict[str, Any]


class Pieces:
    """A content that grows; empty texts leave no trace in it."""

    __slots__ = ("_between", "_parts")

    def __init__(self, between: str, first: Content | Object = "") -> None:
        self._between = between
        self._parts: list[Content | Object] = [first]

    def add(self, part: Content | Object) -> None:
        self._parts.append(part)

    def content(self) -> Content:
        return joined(self._parts, self._between)


def settled(chat: list[Object]) -> list[Object]:
    """The chat, with each of its Pieces replaced by what they are together."""
    for message in chat:
        for key, value in message.items():
            if isinstance(value, Pieces):
                message[key] = value.content()
    return chat
