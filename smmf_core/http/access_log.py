"""access.log: one line per request that has ended, gathered and written a few times a second.

Owns the line's form and the file's descriptor; must not decide what a request's end is. A disk that
is full or gone costs lines, which are counted, never a request.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from pathlib import Path

import msgspec

from smmf_core.config import Log

GATHERED = 1024  # records that wait for the next flush at most
NAME = "access.log"
_TEXT = (
    "%s %s key=%s model=%s instance=%s route=%s status=%d queue_ms=%s first_token_ms=%s "
    "total_ms=%s prompt=%d generated=%d cached=%d finish=%s stream=%s\n"
)
_JSON = (
    '{"time":"%s","request_id":"%s","key":%s,"model":%s,"instance":%s,"route":%s,"status":%d,'
    '"queue_ms":%s,"first_token_ms":%s,"total_ms":%s,"prompt_tokens":%d,"generated_tokens":%d,'
    '"cached_tokens":%d,"finish":%s,"stream":%s}\n'
)
_NAME_CHARS = 200  # a model's name may be anything that a client sent
_QUOTED_KEPT = 1000
_log = logging.getLogger("smmf.access")


class AccessRecord(msgspec.Struct, gc=False):
    """What is known of one request at its end. Times in seconds; None: it did not come so far."""

    time: float  # Unix time of its end
    request_id: str  # harmless in logs (http.request.Request.id)
    key: int | None  # which of the API keys, from 0; None: it came without one
    model: str  # as it was asked for
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
        self._form = _JSON if is_json else _TEXT
        self._none = "null" if is_json else "-"
        self._flags = ("false", "true") if is_json else ("no", "yes")
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

    def _line(self, r: AccessRecord) -> str:
        none = self._none
        return self._form % (
            self._time(r.time),
            r.request_id,
            none if r.key is None else r.key,
            self._name(r.model),
            self._name(r.instance),
            self._name(r.route),
            r.status,
            none if r.queue_s is None else "%.3f" % (1000 * r.queue_s),
            none if r.first_token_s is None else "%.3f" % (1000 * r.first_token_s),
            "%.3f" % (1000 * r.total_s),
            r.prompt_tokens,
            r.generated_tokens,
            r.cached_tokens,
            self._name(r.finish),
            self._flags[r.stream],
        )

    def _time(self, unix: float) -> str:
        second = int(unix)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{int(1000 * (unix - second)):03d}Z"

    def _name(self, name: str) -> str:
        """Quoted where it needs it; remembered, since names come again and again."""
        quoted = self._quoted.get(name)
        if quoted is None:
            if len(self._quoted) >= _QUOTED_KEPT:
                self._quoted.clear()
            if not name:
                quoted = self._none
            else:
                quoted = self._quote(name[:_NAME_CHARS])
            if len(name) <= _NAME_CHARS:
                self._quoted[name] = quoted
        return quoted


def access_log(run_dir: Path, log: Log) -> AccessLog | None:
    """The server's one access log, or None where it is turned off ([log] requests)."""
    if log.requests == "off":
        return None
    return AccessLog(run_dir / "logs" / NAME, log.format == "json")


def bare(name: str) -> str:
    """As it is when it is one word, else in quotes: no name can look like another field or line."""
    is_word = name.isprintable() and not any(letter in name for letter in ' "=\\')
    return name if is_word else json.dumps(name)
