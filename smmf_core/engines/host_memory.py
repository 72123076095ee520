"""How much memory this machine, or the container that this process is in, can still give.

Owns the question to the system, and which errors say that it had too little; must not import an ML
framework.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

GIB = 2**30
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_NO_MEMORY = re.compile(  # as torch, CUDA, ggml, mlx and vLLM say it
    r"not enough memory|out of memory|(can't|cannot|failed to|unable to) allocate|bad_alloc"
    r"|attempting to allocate"
    r"|no available memory for the cache|larger than the available kv cache memory"
    r"|less than desired gpu memory utilization",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether it, or what caused it, is for want of memory."""
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if isinstance(error, OSError):
            if error.errno == errno.ENOMEM:
                return True
        elif _NO_MEMORY.search(str(error)):
            return True
        error = error.__cause__
    return False


def check_weights_fit(needed: float, free: float, place: str) -> None:
    """Bytes. Raises MemoryError: reading weights that do not fit would end in the kernel's hands,
    which kill the process, or another."""
    if needed > free:
        raise MemoryError(
            f"The weights need {needed / GIB:.2f} GiB, and {place} has {free / GIB:.2f} GiB free."
        )


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
