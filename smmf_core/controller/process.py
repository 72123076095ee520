"""Processes: started in sessions of their own, watched by pidfd, signalled, reaped.

Owns descriptors and exit statuses of children; must not decide when to start or end one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from pathlib import Path

from smmf_core.controller.log_files import owner_of
from smmf_core.logs import child_environment, message_of

LAST_WORDS_BYTES = 4096
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_START_TIME = 19  # field 22 of /proc/PID/stat, counted behind the command's name (proc(5))
_SESSION = 3  # field 6
_RESIDENT = 1  # field 2 of /proc/PID/statm, in pages
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Process:
    """One living process, ours or adopted. `pidfd` becomes readable when it ends."""

    def __init__(self, pid: int, popen: subprocess.Popen[bytes] | None = None) -> None:
        """Raises ProcessLookupError when there is no such process."""
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.start_time = start_time(pid) or 0
        self._popen = popen  # None: adopted, its exit status is init's
        self.status: int | None = None  # once buried, if known

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def bury(self) -> str:
        """After it ended: kill what it left behind in its session, reap it; what it died of."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        os.close(self.pidfd)
        if self._popen is None:
            return "ended with unknown status"
        self.status = status = self._popen.wait()
        if status < 0:
            return f"killed by {signal.Signals(-status).name}"
        return f"exited with status {status}"


def spawn(argv: list[str], log: Path, environment: dict[str, str] | None = None) -> Process:
    """Start a process that inherits no descriptor but its log. Raises OSError."""
    with log.open("ab") as output:
        popen = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=child_environment(owner_of(log), environment),
            close_fds=True,
            start_new_session=True,
        )
    return Process(popen.pid, popen)


def last_line(log: Path) -> str:
    """What a process said last; "" when that was nothing."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LAST_WORDS_BYTES))
            tail = file.read(LAST_WORDS_BYTES)
    except OSError:
        return ""
    lines = tail.decode(errors="replace").strip().splitlines()
    return message_of(lines[-1]) if lines else ""


def find(pid: int, started: int) -> Process | None:
    """The process that had this pid and start time, if it lives; a pid alone proves nothing."""
    if start_time(pid) != started:
        return None
    try:
        process = Process(pid)
    except ProcessLookupError:
        return None
    if process.start_time != started:
        os.close(process.pidfd)
        return None
    return process


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[_START_TIME])


def memory_bytes(pid: int) -> int:
    """Resident memory; 0 when the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[_RESIDENT]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def sessions() -> dict[int, set[int]]:
    """Every process of this machine by its session: a child leads its own, and what it starts is in
    it."""
    found: dict[int, set[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it has just ended
                stat = Path(f"/proc/{entry.name}/stat").read_text()
                session = int(stat.rpartition(")")[2].split()[_SESSION])
                found.setdefault(session, set()).add(int(entry.name))
    return found


def has_terminal() -> bool:
    """Whether a terminal that closes is to end this process: it has one, and was not started to
    outlive it (nohup). To be asked at the start: later the terminal, or nohup's word, is gone."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return False
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def become_subreaper() -> None:
    """What a dying child leaves behind becomes ours to reap, not init's."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def reap_strangers(own: set[int]) -> None:
    """Reap zombies that became ours, and leave those of `own` to their Process."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in own:
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(found.si_pid, 0)
