"""Where a server of a configuration is reached, as URLs.

Owns which ports speak TLS; must not look anything up.
"""

from __future__ import annotations

from ipaddress import ip_address

from smmf_core.config.schema import Server


def in_url(host: str) -> str:
    """An address as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address. A name other than localhost counts as open."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def admin_has_tls(server: Server) -> bool:
    """What stays on this machine is not encrypted: so its own commands need no certificates."""
    return bool(server.tls_cert) and not is_loopback(server.admin_host)


def inference_url(server: Server) -> str:
    return f"{'https' if server.tls_cert else 'http'}://{in_url(server.host)}:{server.port}"


def admin_url(server: Server) -> str:
    scheme = "https" if admin_has_tls(server) else "http"
    return f"{scheme}://{in_url(server.admin_host)}:{server.admin_port}"


def client_hosts(server: Server) -> dict[str, str]:
    """Where clients connect, by the key of [server] that says so."""
    hosts = {"host": server.host}
    if server.zmq_port:
        hosts["zmq_host"] = server.zmq_host or server.host
    return hosts


def client_address(server: Server, public_key: bytes) -> str:
    """The client library's from other machines; "": it has none."""
    if not server.zmq_port:
        return ""
    host = in_url(server.zmq_host or server.host)
    return f"tcp://{host}:{server.zmq_port}?key={public_key.hex()}"
