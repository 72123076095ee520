"""Which processes run out of a folder, by what the kernel knows of them (proc(5)).

Owns the question; must not decide what becomes of the folder.
"""

from __future__ import annotations

from pathlib import Path

_PROC = Path("/proc")


def can_tell(proc: Path = _PROC) -> bool:
    return (proc / "self" / "maps").exists()


def users(folder: Path, proc: Path = _PROC) -> list[int]:
    """Processes whose interpreter lies in `folder`, or that have a file of it mapped. Those of
    other users are not seen: they have environments of their own."""
    inside = f"{folder}/".encode()
    return [int(path.name) for path in proc.glob("[0-9]*") if _runs_from(path, inside)]


def _runs_from(process: Path, inside: bytes) -> bool:
    try:
        if (process / "cmdline").read_bytes().startswith(inside):
            return True  # a virtual environment's interpreter is a link: not so by `exe`
        return inside in (process / "maps").read_bytes()
    except OSError:  # it has ended, or is not ours
        return False
