"""How much memory this machine, or the container that this process is in, can still give.

Owns the question to the system; must not import an ML framework.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def free_bytes(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int:
    """The lesser of the two; all of the machine's memory where nothing tells what is free."""
    found = [size for size in (_available(meminfo), _left(cgroup)) if size is not None]
    return min(found, default=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _available(meminfo: Path) -> int | None:
    """What the kernel thinks new programs can use (proc(5))."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _read(meminfo), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _left(cgroup: Path) -> int | None:
    """Of a container's limit, its file cache counted as free (cgroup-v2, memory controller)."""
    limit, used = _read(cgroup / "memory.max").strip(), _read(cgroup / "memory.current").strip()
    if not limit.isdigit() or not used.isdigit():
        return None
    cache = re.search(r"^inactive_file (\d+)", _read(cgroup / "memory.stat"), re.MULTILINE)
    return int(limit) - int(used) + (int(cache[1]) if cache else 0)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
