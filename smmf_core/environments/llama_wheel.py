"""Builds llama-cpp-python, which exists as source only, and keeps the wheel for the next time.

Owns the wheel cache and the build's options; must not install.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from smmf_core.environments import pip
from smmf_core.environments.catalog import CPU
from smmf_core.environments.pip import InstallError

COMPILERS = ("c++", "g++", "clang++")
_KEY_DIGITS = 12
_FLAGS = ("flags", "Features")  # of /proc/cpuinfo, on x86 and on ARM
_SETTINGS = ("-DGGML_NATIVE=ON", "-DLLAVA_BUILD=OFF")

# Read by CMake right after llama.cpp's project(). The Python package needs libllama and ggml only,
# but forces the command line tools' library on; and libllama itself, which builds graphs rather
# than computing them, gains nothing from more than -O1 (ggml, which computes, keeps its own).
HOOK = """\
set(LLAMA_BUILD_COMMON OFF CACHE BOOL "not part of the wheel" FORCE)
cmake_language(DEFER DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}"
               CALL target_compile_options llama PRIVATE -O1)
"""


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/smmf/wheels`."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser().absolute() / "smmf" / "wheels"


def wheel(requirement: str, variant: str, python: str, log: Path, tell: pip.Tell) -> Path:
    """The wheel for this machine's processor and `variant`, built unless it is in the cache.

    Raises InstallError.
    """
    settings = [*_SETTINGS, *_cuda_settings(variant)]
    key = _key(requirement, variant, settings)
    folder = cache_dir() / f"{requirement.replace('==', '-')}-{key}"
    kept = _whole_wheel(folder)
    if kept is not None:
        return kept
    _check_tools(variant)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="smmf-llama-") as hooks:
            hook = Path(hooks) / "hook.cmake"
            hook.write_text(HOOK)
            settings.append(f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={hook}")
            return _build(requirement, python, settings, folder, log, tell)
    except OSError as error:
        raise InstallError(f"cannot keep the wheel in {folder.parent}: {error}") from None


def _build(
    requirement: str, python: str, settings: list[str], folder: Path, log: Path, tell: pip.Tell
) -> Path:
    """pip's own cache knows nothing of our settings: neither read nor filled here."""
    name = requirement.split("==")[0]
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as out:
        flags = ("--no-deps", "--no-cache-dir", "--no-binary", name, "--wheel-dir", out)
        command = (python, "-m", "pip", "wheel", "--verbose", *flags, requirement)
        pip.run(command, log, tell, CMAKE_ARGS=" ".join(settings))
        built = _whole_wheel(Path(out))
        if built is None:
            raise InstallError(f"pip built no wheel of {requirement} (all of it: {log})")
        shutil.rmtree(folder, ignore_errors=True)  # a broken one
        folder.mkdir()
        built.replace(folder / built.name)
        return folder / built.name


def _whole_wheel(folder: Path) -> Path | None:
    for file in folder.glob("*.whl"):
        if zipfile.is_zipfile(file):  # its directory is at the end: a cut one is none
            return file
    return None


def _key(requirement: str, variant: str, settings: list[str]) -> str:
    """Another processor, Python, CUDA version, setting or hook is another wheel."""
    version = ".".join(platform.python_version_tuple()[:2])
    machine = [sys.platform, platform.machine(), _processor()]
    parts = [requirement, variant, version, *machine, *settings, HOOK]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:_KEY_DIGITS]


def _processor() -> str:
    """What the compiler's `native` depends on."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in _FLAGS:
                return " ".join(sorted(value.split()))
    except OSError:
        pass
    return platform.processor()


def _cuda_settings(variant: str) -> list[str]:
    if variant == CPU:
        return []
    return ["-DGGML_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=native"]


def _check_tools(variant: str) -> None:
    if not any(map(shutil.which, COMPILERS)):
        raise InstallError(
            "llama-cpp-python is compiled at its install, and there is no C++ compiler: "
            "install one (`apt install g++`, `dnf install gcc-c++`, `xcode-select --install`)"
        )
    if variant != CPU and shutil.which("nvcc") is None:
        raise InstallError(
            f"llama-cpp-python for CUDA is compiled at its install, and there is no nvcc: install "
            f"the CUDA toolkit {variant} and put its bin folder on PATH, or use --cpu"
        )
