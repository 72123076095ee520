"""access.log: one line per request that has ended, gathered and written a few times a second.

Owns the line's form and the file's descriptor; must not decide what a request's end is. A disk that
is full or gone costs lines, which are counted, never a request.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
from pathlib import Path
from typing import Any

import msgspec

from smmf_core.config import Log

GATHERED = 1024  # records that wait for the next flush at most
NAME = "access.log"
_PAIR = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')
_LONG_NAMES = {
    "prompt": "prompt_tokens", "generated": "generated_tokens", "cached": "cached_tokens"
}  # fmt: skip
_NUMBERS = frozenset({"status", "queue_ms", "first_token_ms", "total_ms", *_LONG_NAMES})
_NAME_CHARS = 200  # a model's name may be anything that a client sent
_QUOTED_KEPT = 1000
_log = logging.getLogger("smmf.access")


class AccessRecord(msgspec.Struct, gc=False):
    """What is known of one request at its end. Times in seconds; None: it did not come so far."""

    time: float  # Unix time of its end
    request_id: str  # harmless in logs (http.request.Request.id)
    key: str  # the API key's id; "": none was needed, or nobody's was given
    model: str  # that was found, with its adapter; else as it was asked for
    instance: str  # "" when it was not placed
    route: str
    status: int  # as sent; 499 when the client went away
    queue_s: float | None
    first_token_s: float | None
    total_s: float
    prompt_tokens: int
    generated_tokens: int
    cached_tokens: int
    finish: str  # the finish reason, else the error's code, else why it was cancelled
    stream: bool


class AccessLog:
    """Appends to the file that `path` names now: whoever rotates it renames it.

    Several Routers share it: a flush is one write to a descriptor in append mode.
    """

    def __init__(self, path: Path, is_json: bool) -> None:
        self._path = path
        self._line = self._json_line if is_json else self._text_line
        self._none = "null" if is_json else "-"
        self._quote = json.dumps if is_json else bare
        self._quoted: dict[str, str] = {}
        self._gathered: list[AccessRecord] = []
        self._second = -1
        self._second_text = ""
        self._fd = -1
        self._inode = (0, 0)
        self._is_torn = False  # the last write ended within a line
        self.lost = 0  # lines, since the last flush that went well

    def add(self, record: AccessRecord) -> None:
        """Keep it for the next flush; in a burst, flush."""
        self._gathered.append(record)
        if len(self._gathered) >= GATHERED:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered, in one write. Never raises; call it a few times a second."""
        gathered = self._gathered
        if not gathered:
            return
        self._gathered = []
        lines = [self._line(record) for record in gathered]
        if self._is_torn:
            lines.insert(0, "\n")
        data = "".join(lines).encode()
        try:
            self._open()
            sent = os.write(self._fd, data)
        except OSError:
            self.lost += len(gathered)
            return
        self._is_torn = sent < len(data)
        if self._is_torn:
            self.lost += data[sent:].count(b"\n")
        elif self.lost:
            _log.warning("%d lines of %s were lost: it could not be written", self.lost, self._path)
            self.lost = 0

    def close(self) -> None:
        self.flush()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # --- inside ---

    def _open(self) -> None:
        """Have the descriptor be of the file that is at the path. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            found = self._path.stat()
            if self._fd >= 0 and self._inode == (found.st_dev, found.st_ino):
                return
        if self._fd >= 0:
            os.close(self._fd)
            self._fd, self._is_torn = -1, False
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o600)
        opened = os.fstat(self._fd)
        self._inode = (opened.st_dev, opened.st_ino)

    # Some thousand lines a second are made by these two, hence all in one expression.

    def _text_line(self, r: AccessRecord) -> str:
        known, name = self._quoted.get, self._name
        queue_s, first_s = r.queue_s, r.first_token_s
        return (
            f"{self._time(r.time)} {r.request_id} key={known(r.key) or name(r.key)} "
            f"model={known(r.model) or name(r.model)} "
            f"instance={known(r.instance) or name(r.instance)} "
            f"route={known(r.route) or name(r.route)} status={r.status} "
            f"queue_ms={'-' if queue_s is None else f'{1000 * queue_s:.3f}'} "
            f"first_token_ms={'-' if first_s is None else f'{1000 * first_s:.3f}'} "
            f"total_ms={1000 * r.total_s:.3f} "
            f"prompt={r.prompt_tokens} generated={r.generated_tokens} cached={r.cached_tokens} "
            f"finish={known(r.finish) or name(r.finish)} stream={'yes' if r.stream else 'no'}\n"
        )

    def _json_line(self, r: AccessRecord) -> str:
        known, name = self._quoted.get, self._name
        queue_s, first_s = r.queue_s, r.first_token_s
        return (
            f'{{"time":"{self._time(r.time)}","request_id":"{r.request_id}",'
            f'"key":{known(r.key) or name(r.key)},'
            f'"model":{known(r.model) or name(r.model)},'
            f'"instance":{known(r.instance) or name(r.instance)},'
            f'"route":{known(r.route) or name(r.route)},"status":{r.status},'
            f'"queue_ms":{"null" if queue_s is None else f"{1000 * queue_s:.3f}"},'
            f'"first_token_ms":{"null" if first_s is None else f"{1000 * first_s:.3f}"},'
            f'"total_ms":{1000 * r.total_s:.3f},"prompt_tokens":{r.prompt_tokens},'
            f'"generated_tokens":{r.generated_tokens},"cached_tokens":{r.cached_tokens},'
            f'"finish":{known(r.finish) or name(r.finish)},'
            f'"stream":{"true" if r.stream else "false"}}}\n'
        )

    def _time(self, unix: float) -> str:
        second = int(unix)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{int(1000 * (unix - second)):03d}Z"

    def _name(self, name: str) -> str:
        """Quoted where it needs it; remembered, since names come again and again."""
        if len(self._quoted) >= _QUOTED_KEPT:
            self._quoted.clear()
        quoted = self._quote(name[:_NAME_CHARS]) if name else self._none
        if len(name) <= _NAME_CHARS:
            self._quoted[name] = quoted
        return quoted


def access_log(run_dir: Path, log: Log) -> AccessLog | None:
    """The server's one access log, or None where it is turned off ([log] requests)."""
    if log.requests == "off":
        return None
    return AccessLog(run_dir / "logs" / NAME, log.format == "json")


def fields_of(line: str) -> dict[str, Any]:
    """A line of either form, with the names and types of the form of JSON. Raises ValueError."""
    if line.startswith("{"):
        found: dict[str, Any] = json.loads(line)
        return found
    when, request_id, rest = line.split(" ", 2)
    fields: dict[str, Any] = {"time": when, "request_id": request_id}
    for name, text in _PAIR.findall(rest):
        fields[_LONG_NAMES.get(name, name)] = _value(name, text)
    return fields


def _value(name: str, text: str) -> Any:
    if text == "-":
        return None
    if name == "stream":
        return text == "yes"
    if name in _NUMBERS or text.startswith('"'):
        return json.loads(text)
    return text


def bare(name: str) -> str:
    """As it is when it is one word, else in quotes: no name can look like another field or line."""
    is_word = name.isprintable() and not any(letter in name for letter in ' "=\\')
    return name if is_word else json.dumps(name)
