"""TLS of the HTTP ports: the context of a certificate and its key, and what is wrong with them.

Owns how the files are read and judged; must not listen. `ssl` is imported where it is needed: it
would cost each start without TLS 10 ms.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from smmf_core.config import ConfigProblems, Problem, Server, ServerConfig
from smmf_core.errors import ConfigError

if TYPE_CHECKING:
    import ssl

_ALPN = ["http/1.1"]
_CERT, _KEY = "tls_cert", "tls_key"


class TlsError(ConfigError):
    """`key`: of [server]."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(f"[server] {key}: {text}")
        self.key = key
        self.text = text


def check(config: ServerConfig) -> None:
    """Raises ConfigProblems naming file and key."""
    if found := problems(config):
        raise ConfigProblems(found)


def problems(config: ServerConfig) -> list[Problem]:
    try:
        if config.server.tls_cert:
            server_context(config.server)
        elif config.server.tls_key:
            raise TlsError(_KEY, f"is given without {_CERT}")
    except TlsError as error:
        return [Problem(config.source, 0, f"[server] {error.key}", "file", error.text)]
    return []


def server_context(server: Server) -> ssl.SSLContext:
    """Python's defaults: TLS 1.2 and 1.3, OpenSSL's ciphers. Raises TlsError."""
    import ssl

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(_ALPN)
    load(context, server)
    return context


def load(context: ssl.SSLContext, server: Server) -> None:
    """Read the files, again perhaps: it holds for new connections. A context is left as it was
    when anything is wrong with them. Raises TlsError."""
    import ssl

    cert, key = server.tls_cert, server.tls_key or server.tls_cert
    _check_certificate(cert)
    _read(_KEY, key)
    key_name = _KEY if server.tls_key else _CERT

    def password() -> str:
        raise TlsError(key_name, f"the key in {key} is encrypted: give it without a passphrase")

    try:
        context.load_cert_chain(cert, key, password)
    except ssl.SSLError as error:
        raise TlsError(key_name, _judge(error, cert, key)) from None


def _check_certificate(path: str) -> None:
    import ssl

    text = _read(_CERT, path)
    try:
        ssl.create_default_context().load_verify_locations(cadata=text.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError):
        raise TlsError(_CERT, f"{path} holds no certificate in PEM form") from None


def _read(name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise TlsError(name, f"cannot read {path}: {error.strerror}") from None


def _judge(error: ssl.SSLError, cert: str, key: str) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"the key in {key} is not that of the certificate in {cert}"
    if error.library == "PEM" or error.reason in (None, "NO_START_LINE"):
        return f"{key} holds no private key in PEM form"
    return f"{key} with {cert} cannot be used: {error.reason or error}"
