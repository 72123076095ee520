"""Runs pip and other commands of an install, and says in one sentence why one failed.

Owns the reading of their output; must not know engines.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from smmf_core.errors import ControlError

_KEPT_LINES = 400  # of a build's output: a compiler's first error is far above its last line
_NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CMAKE_ARGS", "PIP_TARGET")
_NO_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|Failed to resolve|Connection refused|ProxyError|"
    r"Name or service not known|Temporary failure in name resolution|Network is unreachable|"
    r"ConnectTimeoutError|ReadTimeoutError|Max retries exceeded|SSLError|RemoteDisconnected"
)
_HOST = re.compile(r"https?://[^/'\" )]+|host='([^']+)'")
_NOT_FOUND = re.compile(r"No matching distribution found for (\S+)")
_CONFLICT = re.compile(r"ResolutionImpossible|conflicting dependencies")
_NO_COMPILER = re.compile(r"No CMAKE_(C|CXX|CUDA)_COMPILER|CMAKE_(C|CXX|CUDA)_COMPILER not set")
_NO_VENV = re.compile(r"ensurepip is not\s+available|No module named (venv|ensurepip|pip)")
_DISK_FULL = re.compile(r"No space left on device|Errno 28|Disk quota exceeded")
_ERROR_LINE = re.compile(
    r"^\s*(ERROR|error|fatal error|CMake Error|ModuleNotFoundError|ImportError)\b"
)

Tell = Callable[[str], None]


class InstallError(ControlError):
    """An install that cannot go on; the message says why and what helps."""


class NotFound(InstallError):
    """The index does not have a requirement for this Python and platform."""


def run(command: Sequence[str | Path], log: Path, tell: Tell, **variables: str) -> str:
    """Run a command; its output goes to `tell` by lines and to the end of `log`. Returns its last
    line. Raises InstallError."""
    environment = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED} | {
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONNOUSERSITE": "1",
        **variables,
    }
    lines: deque[str] = deque(maxlen=_KEPT_LINES)
    try:
        with (
            log.open("a", errors="replace") as file,
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=environment,
            ) as process,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                tell(line.rstrip())
                if not line.startswith("Progress "):
                    file.write(line)
                    lines.append(line.rstrip())
    except OSError as error:
        raise InstallError(f"{command[0]} cannot be run: {error}") from None
    if process.returncode:
        raise _why(list(lines), log)
    return lines[-1] if lines else ""


def _why(lines: list[str], log: Path) -> InstallError:
    """The first of these that the output shows: a full disk, a Python without pip or venv, no
    network, no such distribution, a conflict, no compiler; else its first error line."""
    text = "\n".join(lines)
    where = f" (all of it: {log})"
    if _DISK_FULL.search(text):
        return InstallError(f"the disk is full{where}")
    if _NO_VENV.search(text):
        return InstallError(
            "this Python has no pip or venv: install them (`apt install python3-venv`, or "
            f"`python -m ensurepip`){where}"
        )
    missing = _NOT_FOUND.search(text)
    is_offline = next((line for line in lines if _NO_NETWORK.search(line)), None)
    if is_offline is not None:
        host = _HOST.search(is_offline)
        name = (host[1] or host[0]) if host else "the package index"
        return InstallError(
            f"cannot reach {name}: check the network, HTTPS_PROXY, or pip's index-url{where}"
        )
    if missing is not None:
        doubt = ", or does not answer" if "(from versions: none)" in text else ""
        told = f"the index has no {missing[1]} for this Python and platform{doubt}"
        return NotFound(told + where)
    if _CONFLICT.search(text):
        return InstallError(f"the packages do not go together{where}")
    compiler = _NO_COMPILER.search(text)
    if compiler is not None:
        return InstallError(f"there is no {compiler[1] or compiler[2]} compiler{where}")
    errors = [line.strip() for line in lines if _ERROR_LINE.match(line)]
    last = lines[-1].strip() if lines else "no output"
    return InstallError(f"{errors[0] if errors else last}{where}")
