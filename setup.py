"""Native extensions of SMMF, one per .pyx; switches for debug, sanitizer and coverage builds."""

import os
from glob import glob
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

ROOT = Path(__file__).parent
os.chdir(ROOT)

DEBUG = os.environ.get("SMMF_DEBUG") == "1"  # -O0 -g and assertions
SANITIZE = os.environ.get("SMMF_SANITIZE", "")  # "address,undefined" or "thread"
COVERAGE = os.environ.get("SMMF_COVERAGE") == "1"  # gcov counters and Cython line tracing

compile_args = ["-std=c++17", "-Wall", "-Wextra", "-fvisibility=hidden"]
compile_args += ["-O0", "-g", "-UNDEBUG"] if DEBUG else ["-O2", "-DNDEBUG"]
link_args = ["-pthread"]
if SANITIZE:
    compile_args += [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-g"]
    link_args += [f"-fsanitize={SANITIZE}"]
if COVERAGE:
    compile_args += ["--coverage", "-DCYTHON_TRACE_NOGIL=1"]
    link_args += ["--coverage"]

EXTENSIONS = [
    Extension(
        f"smmf_core.native.{Path(source).stem}",
        [source],
        include_dirs=["csrc"],
        depends=glob("csrc/smmf/*.hpp"),
        language="c++",
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    for source in sorted(glob("smmf_core/native/*.pyx"))
]

# configs/ is package data under another name; its training scripts stay in the source tree.
CONFIGS = ["", ".demo", ".models", ".providers", ".schema", ".templates"]
PACKAGES = [*find_packages(include=["smmf_core*"]), *("smmf_core.configs" + c for c in CONFIGS)]

setup(
    packages=PACKAGES,
    options={"build_ext": {"parallel": os.cpu_count()}},
    ext_modules=cythonize(
        EXTENSIONS,
        build_dir="build/cython",
        compiler_directives={"language_level": 3, "linetrace": COVERAGE},
    ),
)
