"""A process on a terminal of its own, whose other end a test holds."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

WAIT_S = 60.0
_LOOK_S = 0.1  # between two looks at whether the process lives
_TAKE = (  # a session's leader takes its standard input as its terminal
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)
_CONTROL = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|[()=>][0-9A-B]?)")


class Terminal:
    """`shown` is all that came, without colours and cursor movements."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        columns: int = 100,
        lines: int = 30,
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.settings = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TAKE, *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**environment, "TERM": "xterm"},
            start_new_session=True,
        )
        self._slave = slave
        self.shown = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.hang_up()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT_S)

    def read_until(self, text: str) -> str:
        """Raises TimeoutError with what there is instead."""
        deadline = time.monotonic() + WAIT_S
        while text not in self.shown:
            has_ended = self.process.poll() is not None
            if not select.select([self._master], [], [], _LOOK_S)[0]:
                if has_ended or time.monotonic() > deadline:
                    raise TimeoutError(f"no {text!r} in {self.shown!r}")
                continue
            self.shown += _CONTROL.sub("", os.read(self._master, 65536).decode(errors="replace"))
        return self.shown

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def current_settings(self) -> list[object]:
        return list(termios.tcgetattr(self._slave))

    def hang_up(self) -> None:
        """Close the terminal, as its window does."""
        if self._master >= 0:
            os.close(self._slave)
            os.close(self._master)
            self._master = -1
