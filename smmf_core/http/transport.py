"""What a transport needs so that its protocol can send natively beside it.

Owns the write limits; must not read or write.
"""

from __future__ import annotations

import asyncio


def prepare(transport: asyncio.Transport) -> int:
    """The socket's descriptor, if bytes may be sent on it directly; else -1.

    On a plain socket the protocol is paused while anything is left in the transport's buffer. With
    TLS bytes must pass the transport, and its limits are inclusive: 0 would pause it for good.
    """
    if transport.get_extra_info("sslcontext") is not None:
        transport.set_write_buffer_limits(high=1, low=0)
        return -1
    transport.set_write_buffer_limits(high=0)
    sock = transport.get_extra_info("socket")
    return int(sock.fileno()) if sock is not None else -1
