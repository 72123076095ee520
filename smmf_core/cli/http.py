"""Requests of the CLI to a running server, by the standard library's client.

Owns addresses, keys and the wording of connection errors; must not know any verb.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from smmf_core.errors import ControlError

DEFAULT_URL = "http://127.0.0.1:8001"
TIMEOUT_S = 30.0  # no reading verb takes longer
STREAM_TIMEOUT_S = 600.0  # a model may load before its first token


class CliError(ControlError):
    """Something the user is told in one line."""


class Unreachable(CliError):
    """No server answers at the address."""


class Refused(CliError):
    """The server answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def add_flags(parser: argparse.ArgumentParser, json_output: bool = True) -> None:
    """`--url`, and `--json` for verbs that read."""
    parser.add_argument(
        "--url", default=argparse.SUPPRESS, help=f"admin API (SMMF_URL, default {DEFAULT_URL})"
    )
    if json_output:
        add_json_flag(parser)


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="machine-readable output"
    )


def wants_json(args: argparse.Namespace) -> bool:
    return bool(getattr(args, "json", False))


def admin(args: argparse.Namespace, key: str = "") -> Endpoint:
    """The admin API that the command line or the environment names."""
    url = getattr(args, "url", None) or os.environ.get("SMMF_URL") or DEFAULT_URL
    return Endpoint(url, key)


class Endpoint:
    """One server; a connection per request. `key`: for it, unless SMMF_API_KEY is set."""

    def __init__(self, url: str, key: str = "") -> None:
        split = urlsplit(url if "//" in url else f"http://{url}")
        if split.scheme not in ("http", "https") or not split.hostname:
            raise CliError(f"not an http address: {url}")
        self.url = f"{split.scheme}://{split.netloc}"
        self.host = split.hostname
        self._key = os.environ.get("SMMF_API_KEY") or key
        self._kind: type[http.client.HTTPConnection] = http.client.HTTPConnection
        if split.scheme == "https":
            self._kind = http.client.HTTPSConnection
        try:
            self._port = split.port
        except ValueError:
            raise CliError(f"not a port in {url}") from None

    def get(self, path: str) -> Any:
        return self._call("GET", path, None)

    def post(self, path: str, body: Any, timeout_s: float | None = TIMEOUT_S) -> Any:
        """Without `timeout_s`: until the server answers or goes away."""
        return self._call("POST", path, body, timeout_s)

    def put(self, path: str, body: Any) -> Any:
        return self._call("PUT", path, body)

    def delete(self, path: str, timeout_s: float | None = TIMEOUT_S) -> Any:
        return self._call("DELETE", path, None, timeout_s)

    def events(self, path: str, body: Any) -> Iterator[Any]:
        """The JSON of each server-sent event, up to `[DONE]`. Raises CliError on a cut stream."""
        connection, response = self._send("POST", path, body, STREAM_TIMEOUT_S)
        try:
            for line in response:
                data = line.removeprefix(b"data: ").strip()
                if data == b"[DONE]":
                    return
                if data and data != line.strip():
                    yield json.loads(data)
            raise CliError("the stream ended before its end was said")
        except (OSError, http.client.HTTPException) as error:
            raise CliError(f"the stream broke: {error}") from None
        finally:
            connection.close()

    def _call(self, method: str, path: str, body: Any, timeout_s: float | None = TIMEOUT_S) -> Any:
        connection, response = self._send(method, path, body, timeout_s)
        try:
            text = response.read()
            return json.loads(text) if text.strip() else None
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"the server at {self.url} went away: {error}") from None
        except ValueError:
            raise CliError(f"{self.url} does not speak this API") from None
        finally:
            connection.close()

    def _send(
        self, method: str, path: str, body: Any, timeout_s: float | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = self._kind(self.host, self._port, timeout=timeout_s)
        content = None if body is None else json.dumps(body)
        try:
            connection.request(method, path, content, self._headers())
            response = connection.getresponse()
        except ConnectionRefusedError:
            hint = "start one with `smmf serve`"
            raise Unreachable(f"no server at {self.url}: {hint}") from None
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Unreachable(f"no answer from {self.url}: {_in_words(error)}") from None
        if response.status >= 400:
            message = _error_message(response)
            if response.status == HTTPStatus.UNAUTHORIZED:
                message = f"{message.rstrip('.')}; SMMF_API_KEY names the key"
            if message.startswith(f"Invalid URL ({method} /admin/"):
                message = f"{self.url} is not the admin API, which --url and SMMF_URL name"
            connection.close()
            raise Refused(response.status, message)
        return connection, response

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return headers


def _in_words(error: Exception) -> str:
    if type(error).__name__ == "SSLCertVerificationError":  # ssl is imported for https only
        reason = getattr(error, "verify_message", error)
        return f"its certificate is not trusted ({reason}); SSL_CERT_FILE names its authority's"
    return str(error)


def _error_message(response: http.client.HTTPResponse) -> str:
    """The envelope's message, else the status line."""
    try:
        return str(json.loads(response.read())["error"]["message"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return f"HTTP {response.status} {response.reason}"
