"""What the blocking and the asyncio client have in common: how they are made, and asked.

Owns the driver, the key and the time-outs of a client, and what a stream tells of itself; must not
wait.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable

from smmf_core.client.bodies import Wanted
from smmf_core.client.driver import Driver
from smmf_core.client.errors import Cancelled
from smmf_core.client.exchange import Exchange, Part
from smmf_core.client.find import find
from smmf_core.client.reading import Reading
from smmf_core.client.types import Usage
from smmf_core.lane_messages import Ask


class ClientBase(ABC):
    """Speaks to the Routers of one server, over ZeroMQ; reconnects by itself.

    `address`: `ipc://` and a run directory or a Router's socket in one, or `tcp://host:port`;
    without it this user's running server. `server_key`: that of a tcp:// server, as `smmf serve`
    tells it, if neither the address (`?key=`) nor SMMF_SERVER_KEY does. `api_key`: as over HTTP;
    without it SMMF_API_KEY. `timeout`: seconds for a whole answer, or until the next part of a
    stream. `connect_timeout`: how long a call waits for a server to be there. `retries`: how often
    a call is sent again when the connection is lost before anything of its answer has come.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        api_key: str | None = None,
        server_key: str | None = None,
        timeout: float = 600.0,
        connect_timeout: float = 10.0,
        retries: int = 2,
    ) -> None:
        """Raises ValueError: an address or a key that is none."""
        self._driver = Driver(find(address, server_key))
        self._key = api_key if api_key is not None else os.environ.get("SMMF_API_KEY", "")
        self._timeout = timeout
        self._patience = connect_timeout, retries
        self._is_closed = False
        self._prepare()

    @abstractmethod
    def _prepare(self) -> None:
        """What a kind of client has beside that."""

    def _exchange(self, wanted: Wanted[object], put: Callable[[Part], None]) -> Exchange:
        """It is with the driver, who has to be woken. Raises Cancelled."""
        if self._is_closed:
            raise Cancelled("the client is closed")
        ask = Ask(self._driver.next_id(), wanted.path, wanted.body, self._key)
        exchange = Exchange(ask, put, self._patience)
        self._driver.ask(exchange)
        return exchange

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout


class StreamBase:
    """What is known of one answer beside its deltas."""

    _reading: Reading

    @property
    def request_id(self) -> str:
        return self._reading.request_id

    @property
    def instance(self) -> str:
        """Which replica answers."""
        return self._reading.instance

    @property
    def usage(self) -> Usage | None:
        """Once the stream has been read to its end."""
        return self._reading.usage
