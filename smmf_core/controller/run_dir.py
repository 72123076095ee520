"""The run directory: private to its user, locked by one Controller, remembers the children.

Owns `lock`, `children.json` and the layout of names; must not signal a process.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import msgspec

from smmf_core.controller.log_files import file_name
from smmf_core.errors import ControlError

_SOCKET_PATH_BYTES = 107  # sockaddr_un's 108, less the closing zero
_LONGEST_NAME = "router-999-999999.sock"
_STATE = "children.json"
_PACKAGE = Path(__file__).resolve().parents[1]


class ChildRecord(msgspec.Struct):
    """What a next Controller must know of a child; `pid` 0 when it does not run."""

    role: str  # "controller" | "router" | "worker"
    id: int = 0
    name: str = ""
    incarnation: int = 0
    pid: int = 0
    starttime: int = 0
    model: str = ""
    model_index: int = -1
    is_offline: bool = False
    device: str = ""
    need_bytes: int = 0
    version: int = 0  # of the registry, with the Controller


_decode = msgspec.json.Decoder(list[ChildRecord], strict=True).decode


class RunDir:
    """Made and checked, not yet locked. Raises ControlError when it cannot be ours alone."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock_fd = -1
        room = _SOCKET_PATH_BYTES - len(_LONGEST_NAME) - 1
        if len(os.fsencode(self.path)) > room:
            raise ControlError(
                f"the run directory's path is too long for sockets ({room} bytes at most): "
                f"{self.path}; set [server] run_dir or XDG_RUNTIME_DIR to a shorter one"
            )
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700, exist_ok=True)
            _check_private(self.path)
            self.logs.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ControlError(f"cannot use the run directory {self.path}: {error}") from None

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def log_of(self, role: str, name: str) -> Path:
        """Where a child writes what it has to say."""
        return self.logs / file_name(role, name)

    def endpoint(self, router: int, epoch: int) -> str:
        """Where a Router takes requests' answers and Workers connect (ZeroMQ)."""
        return f"ipc://{self.path}/router-{router}-{epoch}.sock"

    def package_environment(self) -> dict[str, str]:
        """Environment variables under which another interpreter imports this very smmf_core, and
        nothing else of this one's."""
        folder = self.path / "python"
        folder.mkdir(mode=0o700, exist_ok=True)
        link = folder / "smmf_core"
        if not link.is_symlink() or link.readlink() != _PACKAGE:
            link.unlink(missing_ok=True)
            link.symlink_to(_PACKAGE)
        paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    def lock(self, name: str) -> None:
        """Keep it for this process's life. Raises ControlError naming the pid that has it."""
        self._lock_fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = os.pread(self._lock_fd, 32, 0).decode(errors="replace").strip()
            os.close(self._lock_fd)
            raise ControlError(
                f"a server named {name!r} runs already (pid {pid or 'unknown'}, {self.path}); "
                "choose another --name, or end it with `smmf shutdown`"
            ) from None
        os.ftruncate(self._lock_fd, 0)
        os.pwrite(self._lock_fd, b"%d\n" % os.getpid(), 0)

    def load(self) -> list[ChildRecord]:
        """The former Controller's children; none when there was none, or its file is broken."""
        try:
            return _decode((self.path / _STATE).read_bytes())
        except (OSError, msgspec.MsgspecError):
            return []

    def save(self, records: list[ChildRecord]) -> None:
        """Replace the file in one step: a reader sees the old or the new one."""
        new = self.path / f"{_STATE}.new"
        new.write_bytes(msgspec.json.format(msgspec.json.encode(records)))
        new.replace(self.path / _STATE)

    def remove_router_socket(self, router: int, epoch: int) -> None:
        """A Router that was killed leaves its socket file."""
        (self.path / f"router-{router}-{epoch}.sock").unlink(missing_ok=True)

    def clear(self, epochs: set[tuple[int, int]]) -> None:
        """Remove Routers' sockets but those of `epochs` (router, epoch), which live."""
        kept = {f"router-{router}-{epoch}.sock" for router, epoch in epochs}
        for path in self.path.glob("router-*.sock"):
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def forget(self) -> None:
        """Nothing runs any more."""
        self.clear(set())
        (self.path / _STATE).unlink(missing_ok=True)


def _check_private(path: Path) -> None:
    """It is a folder of ours that nobody else may enter, in a place where nobody can replace it."""
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise ControlError(f"{path} is not a folder of this user")
    if found.st_mode & 0o077:
        path.chmod(0o700)
    parent = path.parent.stat()
    is_open = parent.st_mode & 0o002 and not parent.st_mode & stat.S_ISVTX
    if parent.st_uid not in (0, os.geteuid()) or is_open:
        raise ControlError(f"{path.parent} belongs to another user or is open to all")
