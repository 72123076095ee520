"""The Router's TLS: one context for as long as it lives, whose certificate may be another one.

Owns the context; must not listen.
"""

from __future__ import annotations

import logging
import ssl

from smmf_core import tls
from smmf_core.config import Server

_log = logging.getLogger("smmf.router.tls")


class RouterTls:
    def __init__(self) -> None:
        self._server = Server()
        self._context: ssl.SSLContext | None = None

    def begin(self, server: Server) -> ssl.SSLContext | None:
        """What to listen with; None: plain HTTP. Raises TlsError."""
        self._server = server
        self._context = tls.server_context(server) if server.tls_cert else None
        return self._context

    def read_again(self, cert: str, key: str) -> None:
        """For connections from now on; those that there are go on with what they have."""
        if self._context is None:
            return
        self._server.tls_cert, self._server.tls_key = cert, key
        try:
            tls.load(self._context, self._server)
        except tls.TlsError as error:
            _log.error("the former certificate stays: %s", error)
        else:
            _log.info("the certificate was read from %s", cert)
