"""What a user sees of an install: a bar on a terminal, a line per step elsewhere.

Owns how progress looks; must not know what is installed.
"""

from __future__ import annotations

import re
import shutil
import time
from typing import TextIO

_BAR_CELLS = 24
_REDRAW_S = 0.1
_DOWNLOAD = re.compile(r"^Progress (\d+) of (\d+)$")  # pip --progress-bar raw
_COMPILED = re.compile(r"^\s*\[(\d+)/(\d+)\] ")  # ninja
_FILE = re.compile(r"^\s*(?:Downloading|Using cached) (\S+)")
_INSTALLING = "Installing collected packages"
_UNPACKING = 0.8  # of a step's bar are downloads
_FEW_FILES = 5  # that many downloads move it half way
_MIB = 2**20


class Progress:
    """`steps` is how many `step` calls will come."""

    def __init__(self, steps: int, out: TextIO) -> None:
        self._steps = steps
        self._out = out
        self._is_terminal = out.isatty()
        self._at = 0
        self._label = ""
        self._detail = ""
        self._part = 0.0  # of the step, as far as downloads tell
        self._files = 0  # downloaded in this step
        self._drawn_at = 0.0

    def step(self, label: str) -> None:
        self._at += 1
        self._label, self._detail, self._part, self._files = label, "", 0.0, 0
        if self._is_terminal:
            self._draw()
        else:
            self._write(f"smmf: {self._at}/{self._steps} {label}\n")

    def tell(self, line: str) -> None:
        """A line of pip's, or of the build that it runs."""
        download, file, compiled = (p.match(line) for p in (_DOWNLOAD, _FILE, _COMPILED))
        if download is not None:
            done, total = int(download[1]), max(int(download[2]), 1)
            self._detail = f"{self._detail.split('  ')[0]}  {done // _MIB}/{total // _MIB} MiB"
            self._advance(self._files - 1 + done / total)
        elif file is not None:
            self._files += 1
            self._detail = file[1].rsplit("/", 1)[-1]
            self._advance(self._files - 1)
        elif compiled is not None:
            self._part = int(compiled[1]) / max(int(compiled[2]), 1)
            self._detail = f"{compiled[1]}/{compiled[2]} files"
        elif line.startswith(_INSTALLING):
            self._detail, self._part = "unpacking", max(self._part, _UNPACKING)
        elif line.startswith(("Collecting ", "Building wheel")):
            self._detail = line.split(" (")[0].strip().lower()
        if self._is_terminal and time.monotonic() >= self._drawn_at + _REDRAW_S:
            self._draw()

    def _advance(self, files: float) -> None:
        """How many files will come is not known: each brings the end nearer by a smaller part."""
        self._part = max(self._part, _UNPACKING * files / (files + _FEW_FILES))

    def end(self) -> None:
        if self._is_terminal and self._at:
            self._write("\r\x1b[K")

    def _draw(self) -> None:
        self._drawn_at = time.monotonic()
        done = (self._at - 1 + self._part) / self._steps
        full = round(done * _BAR_CELLS)
        bar = "#" * full + "." * (_BAR_CELLS - full)
        detail = f": {self._detail}" if self._detail else ""
        text = f"[{bar}] {self._at}/{self._steps} {self._label}{detail}"
        self._write(f"\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
