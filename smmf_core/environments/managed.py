"""Managed environments on disk: their folder, the stamp that makes one whole, the lock.

Owns names and the stamp. An environment is a virtual environment that is never moved: it is built
in the folder `NAME-VARIANT-KEY` where it stays, gets its stamp as the last thing, and is then what
the link `NAME` points to. A folder without a stamp is the rest of an interrupted install.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from smmf_core.environments import in_use
from smmf_core.environments.catalog import WORKER_NEEDS, Build

STAMP = "smmf-engine.json"
_KEY_DIGITS = 10
_PACKAGE = Path(__file__).resolve().parents[1]


class Stamp(msgspec.Struct):
    """What a whole environment says of itself."""

    engine: str
    variant: str
    version: str  # of the engine
    python: str  # "3.11.7"
    device: str  # "cpu", "cuda 12.4"


class Managed(msgspec.Struct, frozen=True):
    """A whole environment."""

    folder: Path
    stamp: Stamp

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")


def engines_dir() -> Path:
    """`$SMMF_ENGINES_DIR`, else `$XDG_DATA_HOME/smmf/engines`."""
    given = os.environ.get("SMMF_ENGINES_DIR")
    if given:
        return Path(given).expanduser().absolute()
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser().absolute() / "smmf" / "engines"


def find(name: str) -> Managed | None:
    """The environment of an engine if it is whole and of this Python's version."""
    folder = (engines_dir() / name).resolve()
    stamp = read_stamp(folder)
    if stamp is None or not (folder / "bin" / "python").exists():
        return None
    is_ours = stamp.python.split(".")[:2] == list(platform.python_version_tuple()[:2])
    return Managed(folder, stamp) if is_ours else None  # native modules fit one version only


def read_stamp(folder: Path) -> Stamp | None:
    try:
        return msgspec.json.decode((folder / STAMP).read_bytes(), type=Stamp)
    except (OSError, msgspec.MsgspecError):
        return None


def write_stamp(folder: Path, stamp: Stamp) -> None:
    """The folder is whole from here on, whatever happens next."""
    new = folder / f"{STAMP}.new"
    with new.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(stamp)))
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / STAMP)


def folder_for(name: str, variant: str, build: Build) -> Path:
    """Where a build goes: another folder for other requirements or another Python."""
    version = ".".join(platform.python_version_tuple()[:2])
    parts = [version, platform.machine(), sys.platform, build.torch, *build.requires]
    key = hashlib.sha256("\n".join([*parts, *build.remove, *WORKER_NEEDS]).encode()).hexdigest()
    return engines_dir() / f"{name}-{variant}-{key[:_KEY_DIGITS]}"


def make_current(name: str, folder: Path) -> None:
    """Point the link there in one step, and remove the engine's other environments, but those that
    Workers still run from."""
    link = folder.parent / name
    new = folder.parent / f".{name}.new"
    new.unlink(missing_ok=True)
    new.symlink_to(folder.name)
    new.replace(link)
    _remove_former(name, folder)


def remove_former(name: str) -> None:
    """Remove an engine's former environments that nobody runs from any more, unless an install is
    under way."""
    current = (engines_dir() / name).resolve()
    has_former = any(folder != current for folder in _folders(name))
    if not has_former or read_stamp(current) is None:
        return
    with contextlib.suppress(OSError), (engines_dir() / f".{name}.lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove_former(name, current)


def _remove_former(name: str, current: Path) -> None:
    if not in_use.can_tell():  # they stay until `smmf engines remove`
        return
    for other in _folders(name):
        if other != current and not in_use.users(other):
            (other / STAMP).unlink(missing_ok=True)  # first: it is not whole any more
            shutil.rmtree(other, ignore_errors=True)


def link_package(folder: Path) -> None:
    """Have the environment import this very package, and nothing else of where it is installed.

    A link, so that versions cannot drift apart.
    """
    version = ".".join(platform.python_version_tuple()[:2])
    link = folder / "lib" / f"python{version}" / "site-packages" / "smmf_core"
    if link.is_symlink() and link.readlink() == _PACKAGE:
        return
    new = link.with_name(".smmf_core.new")
    new.unlink(missing_ok=True)
    new.symlink_to(_PACKAGE)
    new.replace(link)


def remove(name: str) -> bool:
    """Remove all environments of an engine, whole or not; whether there were any."""
    folders = _folders(name)
    (engines_dir() / name).unlink(missing_ok=True)
    for folder in folders:
        (folder / STAMP).unlink(missing_ok=True)  # first: it is not whole any more
        shutil.rmtree(folder)
    return bool(folders)


def _folders(name: str) -> list[Path]:
    return [path for path in engines_dir().glob(f"{name}-*-*") if path.is_dir()]


@contextlib.contextmanager
def locked(name: str) -> Iterator[bool]:
    """Keep other installs of an engine out. Yields whether one had to be waited for.

    The lock is the kernel's: an install that is killed leaves none. Raises OSError.
    """
    engines_dir().mkdir(parents=True, exist_ok=True)
    with (engines_dir() / f".{name}.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield False
        except BlockingIOError:
            print(f"smmf: another install of {name} is running; waiting for it", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
            yield True
