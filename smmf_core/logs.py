"""The one way in which SMMF's processes log: lines of text or JSON, appended by a descriptor.

Owns the form of a line, and that a log which cannot be written stops nothing. Must not decide where
files are or when they are rotated (controller.log_files).
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from smmf_core.config import Log

LEVEL, FORMAT, NAME = "SMMF_LOG_LEVEL", "SMMF_LOG_FORMAT", "SMMF_LOG_NAME"
STAMP_CHARS = len("2026-01-01T00:00:00.000Z")
_STDERR = 2
_log = logging.getLogger("smmf")


def tell_children(log: Log) -> None:
    """What processes started from here on are to do, before they are told anything else."""
    os.environ[LEVEL], os.environ[FORMAT] = log.level, log.format


def child_environment(name: str, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child that calls itself `name` in its lines."""
    return {**(os.environ if environment is None else environment), NAME: name}


def set_up() -> None:
    """A child's logging, as its environment says, to its standard error.

    What anybody prints goes the same way as before, and is dropped where the disk is full: an
    engine's progress bar must not end a Worker.
    """
    sys.stdout, sys.stderr = _unfailing(sys.stdout), _unfailing(sys.stderr)
    level = os.environ.get(LEVEL, "info")
    _install(_STDERR, level, os.environ.get(FORMAT) == "json", os.environ.get(NAME, ""))
    sys.excepthook = _log_uncaught


def set_up_file(path: Path, log: Log) -> None:
    """The Controller's logging: its standard error is the user's terminal. Raises OSError."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    _install(os.open(path, flags, 0o600), log.level, log.format == "json", path.stem)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # of the admin API: each start and end


def message_of(line: str) -> str:
    """What a line of any of our logs says, without when and who."""
    if line.startswith("{"):
        try:
            fields = json.loads(line)
            text = str(fields.get("exception") or fields["message"])
            return text.strip().splitlines()[-1]
        except (ValueError, KeyError, IndexError):
            return line
    if not is_stamped(line):
        return line
    _, _, message = line.partition(": ")
    return message or line


def is_stamped(line: str) -> bool:
    """Whether a line of text begins with a time: others belong to the one before."""
    return len(line) > STAMP_CHARS and line[4:5] == "-" and line[STAMP_CHARS - 1] == "Z"


def stamp_of(line: str) -> str:
    """When a line was written, as text that sorts; "" where it does not say."""
    if line.startswith('{"time":"'):
        return line[9 : 9 + STAMP_CHARS]
    return line[:STAMP_CHARS] if is_stamped(line) else ""


def _install(fd: int, level: str, is_json: bool, name: str) -> None:
    handler = _Descriptor(fd)
    handler.setFormatter(_JsonLines(name) if is_json else _TextLines())
    root = logging.getLogger()
    for former in root.handlers[:]:
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.raiseExceptions = False  # a wrong argument of a log call is no reason to stop either
    logging.captureWarnings(True)


class _Descriptor(logging.Handler):
    """One write a record, so that lines of several writers never mix."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    def emit(self, record: logging.LogRecord) -> None:
        try:
            os.write(self._fd, f"{self.format(record)}\n".encode(errors="backslashreplace"))
        except Exception:  # a full disk; an argument that cannot be shown
            return


class _TextLines(logging.Formatter):
    """`TIME LEVEL LOGGER: [REQUEST] MESSAGE`, and the traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        request = getattr(record, "request_id", "")
        about = f"[{request}] " if request else ""
        head = f"{_stamp(record.created)} {record.levelname} {record.name}: {about}"
        text = head + record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class _JsonLines(logging.Formatter):
    """One object a line; `time` first."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": _stamp(record.created),
            "level": record.levelname.lower(),
            "process": self._name,
            "logger": record.name,
            "message": record.getMessage(),
        }
        request = getattr(record, "request_id", "")
        if request:
            fields["request_id"] = request
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)


def _stamp(unix: float) -> str:
    """UTC in milliseconds (RFC 3339): sorts as text, and is the same on every host."""
    second = int(unix)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return f"{text}.{int(1000 * (unix - second)):03d}Z"


def _log_uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    _log.critical("it ends: %s", error, exc_info=(kind, error, traceback))


class _Unfailing(io.RawIOBase):
    """A descriptor's writing end that takes what it cannot write."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def write(self, data: Any) -> int:
        try:
            return os.write(self._fd, data)
        except OSError:
            return len(data)


def _unfailing(stream: TextIO) -> TextIO:
    """`stream` with what it has buffered gone out, writing line by line."""
    stream.flush()
    raw = io.BufferedWriter(_Unfailing(stream.fileno()))
    return io.TextIOWrapper(raw, "utf-8", "backslashreplace", line_buffering=True)
