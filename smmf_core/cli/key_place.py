"""Where keys are: at a running server, or in the registry of one that does not run.

Owns which of both is meant. A registry is opened only under the lock of the server's name, so that
no server starts meanwhile.
"""

from __future__ import annotations

import argparse
import os
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from smmf_core.cli.http import CliError, Endpoint, Unreachable, admin
from smmf_core.config import ServerConfig, load_server, run_directory
from smmf_core.config.addresses import admin_url
from smmf_core.controller.run_dir import RunDir
from smmf_core.errors import ControlError

KEYS = "/admin/v1/keys"
Row = dict[str, Any]


class Place(Protocol):
    """Every method raises ControlError. Rows are the admin API's."""

    def create(self, wanted: Row) -> Row: ...
    def keys(self, with_revoked: bool) -> list[Row]: ...
    def revoke(self, key_id: str) -> Row: ...
    def usage(self, asked: dict[str, str]) -> list[Row]: ...


def add_flags(parser: argparse.ArgumentParser) -> None:
    about = "the server of that name, whether it runs or not (default)"
    parser.add_argument("--server", metavar="NAME", help=about)
    parser.add_argument("--config", metavar="FILE", help="the server of these settings (smmf.toml)")


def place(args: argparse.Namespace) -> Place:
    """1. A server was named, and does not run: its registry. 2. It runs: its admin API.
    3. None was named: the admin API that answers. 4. None does on this machine, and no --url
    insists on it: the default's registry.

    Raises CliError.
    """
    config = load_server(args.config, {"server.name": args.server})
    if args.server or args.config:
        try:
            return _registry(config)  # 1
        except _Runs:
            return _Running(_admin_of(config, args))  # 2
    server = admin(args)
    try:
        server.get("/admin/v1/health")
        return _Running(server)  # 3
    except Unreachable as error:
        if getattr(args, "url", None) or not _is_here(server.host):
            raise
        try:
            return _registry(config)  # 4
        except _Runs as other:
            raise CliError(f"{error}; but {other}: --url names its admin API") from None


class _Runs(CliError):
    """A server of that name runs."""


class _Running:
    """A server's admin API as a Place."""

    def __init__(self, server: Endpoint) -> None:
        self._server = server

    def create(self, wanted: Row) -> Row:
        row: Row = self._server.post(KEYS, wanted)
        return row

    def keys(self, with_revoked: bool) -> list[Row]:
        rows: list[Row] = self._server.get(KEYS + ("?all=true" if with_revoked else ""))
        return rows

    def revoke(self, key_id: str) -> Row:
        row: Row = self._server.delete(f"{KEYS}/{quote(key_id, safe='')}")
        return row

    def usage(self, asked: dict[str, str]) -> list[Row]:
        rows: list[Row] = self._server.get(f"/admin/v1/usage?{urlencode(asked)}")
        return rows


def _registry(config: ServerConfig) -> Place:
    """Raises _Runs."""
    try:
        RunDir(run_directory(config.server)).lock(config.server.name)  # for this process's life
    except ControlError as error:
        raise _Runs(str(error).partition(";")[0]) from None
    from smmf_core.cli.key_registry import KeyRegistry  # SQLAlchemy takes its time

    return KeyRegistry(config)


def _admin_of(config: ServerConfig, args: argparse.Namespace) -> Endpoint:
    if getattr(args, "url", None) or os.environ.get("SMMF_URL"):
        return admin(args)
    server = config.server
    key = next(iter(server.api_keys), "")
    return Endpoint(admin_url(server), key)


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
