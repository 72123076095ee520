"""Rules about the source itself: imports go down only, files stay small, nothing is left to do."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "smmf_core"
FILES = sorted(PACKAGE.rglob("*.py"))

# The first prefix that fits decides; a package's own __init__ belongs to its modules' lowest layer.
LAYERS = (
    ("smmf_core.cli", 4),
    ("smmf_core.router.auto", 1),
    ("smmf_core.router.call", 1),
    ("smmf_core.router.core", 1),
    ("smmf_core.router.fleet", 1),
    ("smmf_core.router.keys", 1),
    ("smmf_core.router.loading", 1),
    ("smmf_core.router.response", 1),
    ("smmf_core.router.retry_after", 1),
    ("smmf_core.router.stream_answer", 1),
    ("smmf_core.router.told", 1),
    ("smmf_core.router.usage", 1),
    ("smmf_core.worker.core", 1),
    ("smmf_core.worker.choice", 1),
    ("smmf_core.worker.contract", 1),
    ("smmf_core.worker.embed_batcher", 1),
    ("smmf_core.worker.embed_core", 1),
    ("smmf_core.worker.embed_prepare", 1),
    ("smmf_core.worker.parse", 1),
    ("smmf_core.worker.prepare", 1),
    ("smmf_core.worker.probe", 1),
    ("smmf_core.worker.read_choice", 1),
    ("smmf_core.worker.reading", 1),
    ("smmf_core.worker.text", 1),
    ("smmf_core.worker.tokens", 1),
    ("smmf_core.controller.core", 1),
    ("smmf_core.controller.adapters", 1),
    ("smmf_core.controller.keys", 1),
    ("smmf_core.controller.rings", 1),
    ("smmf_core.controller.log_files", 2),
    ("smmf_core.controller.demand", 1),
    ("smmf_core.controller.lives", 1),
    ("smmf_core.controller.reconcile", 1),
    ("smmf_core.controller.rollout", 1),
    ("smmf_core.controller.room", 1),
    ("smmf_core.controller.status", 1),
    ("smmf_core.controller.table", 1),
    ("smmf_core.controller.upkeep", 1),
    ("smmf_core.controller.verbs", 1),
    ("smmf_core.controller.swap", 1),
    ("smmf_core.controller.autoscale", 1),
    ("smmf_core.controller.health", 1),
    ("smmf_core.controller.hang", 1),
    ("smmf_core.controller.thresholds", 1),
    ("smmf_core.controller.need", 2),
    ("smmf_core.controller.weights", 2),
    ("smmf_core.controller.gpus", 2),
    ("smmf_core.controller.page_cache", 2),
    ("smmf_core.controller.process", 2),
    ("smmf_core.adapters", 1),
    ("smmf_core.registry", 1),
    ("smmf_core.lifecycle", 1),
    ("smmf_core.metrics", 1),
    ("smmf_core.api", 1),
    ("smmf_core.native", 1),
    ("smmf_core.store.asked", 1),
    ("smmf_core.store.issue", 1),
    ("smmf_core.store.when", 1),
    ("smmf_core.store.records", 1),
    ("smmf_core.store.outbox", 1),
    ("smmf_core.store.memory", 1),
    ("smmf_core.store", 2),
    ("smmf_core.wire", 2),
    ("smmf_core.http", 2),
    ("smmf_core.engines.base", 1),  # protocols only
    ("smmf_core.engines", 2),
    ("smmf_core.client", 2),
    ("smmf_core.loadgen", 2),
    ("smmf_core.environments", 2),
    ("smmf_core.router", 3),
    ("smmf_core.worker", 3),
    ("smmf_core.controller", 3),
    ("smmf_core.admin", 3),
    ("smmf_core.logs", 2),
    ("smmf_core.tls", 2),
    ("smmf_core.errors", 0),
    ("smmf_core.messages", 0),
    ("smmf_core.control_messages", 0),
    ("smmf_core.config", 0),
    ("smmf_core", 0),
)
BANNED_BELOW_2 = {"asyncio", "socket", "os", "time", "zmq", "logging", "threading", "subprocess"}
READS_FILES = {"smmf_core.config.load"}  # the loader: the one part of layer 0 that meets the system
TORCH = ("smmf_core.engines.transformers", "smmf_core.engines.embed")
ONLY_IN = {
    "zmq": ("smmf_core.wire.requests", "smmf_core.wire.curve", "smmf_core.client"),
    "httptools": ("smmf_core.http",),
    "torch": (*TORCH, "smmf_core.engines.vllm.kernels"),  # they are operations of torch
    "transformers": (*TORCH, "smmf_core.engines.prompt.slow_tokenizer"),
    "vllm": ("smmf_core.engines.vllm",),
    "llama_cpp": ("smmf_core.engines.llama_cpp.api",),
    "mlx": ("smmf_core.engines.mlx",),
    "mlx_lm": ("smmf_core.engines.mlx",),
    "sqlalchemy": ("smmf_core.store",),
    "litestar": ("smmf_core.admin",),
}
STRANGERS = ("smmf_core.router", "smmf_core.worker", "smmf_core.controller")
MAX_LINES = 400
MAX_HEADER_LINES = 300
MAX_PYX_LINES = 200


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(module: str) -> int:
    return next(level for prefix, level in LAYERS if within(module, prefix))


def within(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")


def imports(file: Path) -> Iterator[str]:
    """Every module a file imports, anywhere in it; `from package import module` as the module."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            for alias in node.names:
                path = ROOT.joinpath(*f"{node.module}.{alias.name}".split("."))
                is_module = path.is_dir() or path.with_suffix(".py").exists()
                yield f"{node.module}.{alias.name}" if is_module else str(node.module)


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_imports_go_down_only(file: Path) -> None:
    module = module_name(file)
    if file.name == "__init__.py":
        return  # a package's face re-exports what its modules were checked for
    own = layer(module)
    up = [name for name in imports(file) if within(name, "smmf_core") and layer(name) > own]
    assert not up, f"layer {own} imports upwards: {up}"


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_vocabulary_and_pure_code_do_not_meet_the_system(file: Path) -> None:
    module = module_name(file)
    if layer(module) > 1 or module in READS_FILES:
        return
    met = {name.split(".")[0] for name in imports(file)} & BANNED_BELOW_2
    assert not met, f"layer {layer(module)} imports {sorted(met)}"


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_each_library_has_its_place(file: Path) -> None:
    module = module_name(file)
    for name in imports(file):
        places = ONLY_IN.get(name.split(".")[0])
        allowed = places is None or any(within(module, place) for place in places)
        assert allowed, f"{name} is imported outside {places}"


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_router_worker_and_controller_never_import_each_other(file: Path) -> None:
    module = module_name(file)
    own = next((name for name in STRANGERS if within(module, name)), None)
    if own is None:
        return
    others = [name for name in STRANGERS if name != own]
    met = [name for name in imports(file) if any(within(name, other) for other in others)]
    assert not met


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_modules_say_what_they_own(file: Path) -> None:
    tree = ast.parse(file.read_text())
    assert ast.get_docstring(tree) or not tree.body


@pytest.mark.parametrize(
    ("pattern", "limit"),
    [
        ("smmf_core/**/*.py", MAX_LINES),
        ("smmf_core/**/*.pyx", MAX_PYX_LINES),
        ("csrc/**/*.hpp", MAX_HEADER_LINES),
        ("bench/**/*.py", MAX_LINES),
        ("configs/demo/train/*.py", MAX_LINES),
    ],
)
def test_files_stay_small(pattern: str, limit: int) -> None:
    lengths = {file: len(file.read_text().splitlines()) for file in ROOT.glob(pattern)}
    assert {str(f.relative_to(ROOT)): n for f, n in lengths.items() if n > limit} == {}


def test_nothing_is_left_to_do() -> None:
    words = ("TO" + "DO", "FIX" + "ME", "X" + "XX", "NotImplemented" + "Error")
    sources = [f for f in PACKAGE.rglob("*") if f.suffix in (".py", ".pyx", ".pxd", ".pyi")]
    sources += ROOT.glob("csrc/**/*.hpp")
    found = [
        f"{file.relative_to(ROOT)}: {word}"
        for file in sources
        for word in words
        if word in file.read_text()
    ]
    assert found == []


def test_every_folder_with_python_is_a_package() -> None:
    """Else a wheel would not have it."""
    folders = {file.parent for file in FILES}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_no_engine_is_left_out_silently() -> None:
    """Tests say which engine they need by `engines_env.require`, which fails without it."""
    word = "import" + "orskip"
    tests = (ROOT / "tests").rglob("*.py")
    assert [str(f.relative_to(ROOT)) for f in tests if word in f.read_text()] == []
