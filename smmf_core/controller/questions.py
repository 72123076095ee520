"""Questions to Workers that somebody waits for, each with a number of its own.

Owns who waits; must not know what is asked for.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from smmf_core.control_messages import Inspect, Inspected, ToChild
from smmf_core.controller.table import Key
from smmf_core.errors import ControlError
from smmf_core.lifecycle import Child


class Questions:
    """`send` gives a message to a child that is connected."""

    def __init__(self, send: Callable[[Child, ToChild], None]) -> None:
        self._send = send
        self._serials = itertools.count(1)
        self._open: dict[int, tuple[Key, asyncio.Future[dict[str, Any]]]] = {}

    async def inspect(self, child: Child) -> dict[str, Any]:
        """Its live state. Raises ControlError when it cannot be asked or ends meanwhile."""
        if not child.connected:
            raise ControlError(f"{child.name} is {child.state}: it cannot be asked")
        serial = next(self._serials)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._open[serial] = child.key, answer
        try:
            self._send(child, Inspect(serial))
            return await answer
        finally:
            del self._open[serial]

    def answered(self, child: Child, message: Inspected) -> None:
        key, answer = self._open.get(message.serial, (None, None))
        if answer is not None and key == child.key and not answer.done():
            answer.set_result(message.facts)

    def died(self, child: Child) -> None:
        for key, answer in self._open.values():
            if key == child.key and not answer.done():
                answer.set_exception(ControlError(f"{child.name} has ended"))
