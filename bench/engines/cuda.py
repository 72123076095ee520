"""`python -m bench.engines.cuda`: transformers and the embedding engine on a CUDA device.

Models of a few hundred million random parameters, made here from a class of configuration: their
words mean nothing, their arithmetic costs what that of real ones does. First correctness against
the library in float32, then rates in bfloat16 against the library on the same batch. Rounds are
taken in turn, so that a change of the machine's clock meets both alike; what is told is the median
of the rounds' ratios, and the best rates. `--device cpu` does the same with tiny models: it shows
that this runs, its figures mean nothing. Must not need a hub or a checkpoint.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from sentence_transformers import SentenceTransformer

from bench.engines.harness import stepped_rate
from bench.runner import RESULTS, machine
from smmf_core.config import Deployment, Model, ModelConfig, bundled
from smmf_core.config.schema import Optimization
from smmf_core.engines.base import Output
from smmf_core.engines.transformers.engine import create

ROUNDS = 5
CHECKED = 6  # prompts, or texts, whose answers are compared one by one
TOLERANCE = 1e-4  # of a vector's numbers, which are at most 1


@dataclass(frozen=True, slots=True)
class Sizes:
    width: int
    layers: int
    heads: int
    vocabulary: int
    prompt: int  # tokens
    answer: int
    requests: tuple[int, ...]
    texts: int
    batch: int  # of texts


LARGE = Sizes(1024, 24, 16, 32_000, 128, 128, (1, 8, 64, 256), 2048, 64)
TINY = Sizes(64, 2, 4, 4_096, 16, 12, (1, 8), 64, 16)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.engines.cuda", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, help="default: bench/results/cuda.json, on a GPU")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        text = "no GPU is here, or this torch has no CUDA: not measured (--device cpu runs it tiny)"
        print(text, file=sys.stderr)
        return 1
    figures = run(args.device)
    print(json.dumps(figures, indent=1))
    out = args.out or (RESULTS / "cuda.json" if args.device == "cuda" else None)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def run(device: str) -> dict[str, Any]:
    sizes = LARGE if device == "cuda" else TINY
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu, tiny models"
    with tempfile.TemporaryDirectory() as folder:
        return {
            "machine": machine(),
            "device": name,
            "torch": torch.__version__,
            "transformers": hf.__version__,
            "generate": _generate(_causal(Path(folder) / "causal", sizes), device, sizes),
            "embed": _embed(_encoder(Path(folder) / "encoder", sizes), device, sizes),
        }


# --- text ---


def _generate(folder: Path, device: str, sizes: Sizes) -> dict[str, Any]:
    """Tokens per second at each number of requests, prompts included."""
    figures: dict[str, Any] = {"correct": _same_text(folder, device, sizes)}
    library, engine = _library(folder, device, torch.bfloat16), _engine(folder, device, "bfloat16")
    figures["parameters"] = sum(part.numel() for part in library.parameters())
    for count in sizes.requests:
        asked = _prompts([sizes.prompt] * count, sizes, seed=count)
        figures[str(count)] = _compare(
            partial(_generated_rate, library, asked, sizes.answer),
            partial(stepped_rate, engine, asked, sizes.answer),
        )
    engine.close()
    return figures


def _same_text(folder: Path, device: str, sizes: Sizes) -> str:
    """Greedy answers in float32, of different lengths at once, against `generate` one by one."""
    library, engine = _library(folder, device, torch.float32), _engine(folder, device, "float32")
    lengths = [sizes.prompt - 2 * n for n in range(CHECKED)]
    asked = _prompts(lengths, sizes, seed=0)
    got: dict[int, list[int]] = {number: [] for number in range(CHECKED)}

    def note(output: Output) -> None:
        got[output.sequence.id].append(output.token)

    stepped_rate(engine, asked, sizes.answer, note)
    wanted = [_tokens(library, [prompt], sizes.answer)[0] for prompt in asked]
    engine.close()
    same = sum(got[number] == tokens for number, tokens in enumerate(wanted))
    return f"{same} of {CHECKED} answers equal"


def _library(folder: Path, device: str, dtype: torch.dtype) -> Any:
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
    model.generation_config.eos_token_id = None  # answers have the length that was asked for
    return model


def _engine(folder: Path, device: str, dtype: Any) -> Any:
    config = ModelConfig(
        model=Model(name="m", backend="transformers", path=str(folder)),
        deployment=Deployment(device=device),
        optimization=Optimization(dtype=dtype, max_batch_size=256),
        engine={"prefix_cache_tokens": 0},  # every round computes its prompts
    )
    engine: Any = create(config)
    engine.load(lambda done: None)
    return engine


def _tokens(model: Any, asked: list[list[int]], count: int) -> list[list[int]]:
    ids = torch.tensor(asked, device=model.device)
    with torch.inference_mode():
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
        )
    answers: list[list[int]] = made[:, ids.shape[1] :].tolist()
    return answers


def _generated_rate(model: Any, asked: list[list[int]], count: int) -> float:
    began = time.perf_counter()
    _tokens(model, asked, count)  # it ends with its tokens on the host: the device is done
    return len(asked) * count / (time.perf_counter() - began)


def _prompts(lengths: list[int], sizes: Sizes, seed: int) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(10, sizes.vocabulary) for _ in range(n)] for n in lengths]


# --- vectors ---


def _embed(folder: Path, device: str, sizes: Sizes) -> dict[str, Any]:
    """Texts per second, in batches of the same number of texts, sorted by length."""
    figures: dict[str, Any] = {"correct": _same_vectors(folder, device, sizes)}
    library, engine = _sentences(folder, device, "bfloat16"), _encoding(folder, device, "bfloat16")
    figures["parameters"] = sum(part.numel() for part in library.parameters())
    texts = _texts(sizes.texts, seed=1)
    figures[f"batches of {sizes.batch}"] = _compare(
        partial(_library_rate, library, texts, sizes.batch),
        partial(_encoded_rate, engine, texts, sizes.batch),
    )
    engine.close()
    return figures


def _same_vectors(folder: Path, device: str, sizes: Sizes) -> str:
    library, engine = _sentences(folder, device, "float32"), _encoding(folder, device, "float32")
    texts = _texts(CHECKED, seed=2)
    wanted = library.encode(texts, normalize_embeddings=True)
    got = engine.encode(engine.tokenize(texts, None, 0))
    engine.close()
    error = float(np.abs(got - wanted).max())
    return f"{'equal' if error <= TOLERANCE else 'NOT equal'} within {error:.1e}"


def _sentences(folder: Path, device: str, dtype: str) -> SentenceTransformer:
    kind = {"torch_dtype": getattr(torch, dtype)}
    model = SentenceTransformer(str(folder), device=device, model_kwargs=kind)
    model.eval()
    return model


def _encoding(folder: Path, device: str, dtype: Any) -> Any:
    config = ModelConfig(
        model=Model(name="e", backend="transformers", path=str(folder), task="embed"),
        deployment=Deployment(device=device),
        optimization=Optimization(dtype=dtype),
    )
    engine: Any = create(config)
    engine.load(lambda done: None)
    return engine


def _library_rate(library: SentenceTransformer, texts: list[str], batch: int) -> float:
    began = time.perf_counter()
    library.encode(texts, batch_size=batch, normalize_embeddings=True)
    return len(texts) / (time.perf_counter() - began)


def _encoded_rate(engine: Any, texts: list[str], batch: int) -> float:
    began = time.perf_counter()
    ready = sorted(engine.tokenize(texts, None, 0), key=lambda text: -len(text.ids))
    for first in range(0, len(ready), batch):
        engine.encode(ready[first : first + batch])
    return len(texts) / (time.perf_counter() - began)


def _texts(count: int, seed: int) -> list[str]:
    words = "river house music dog king garden story winter market letter bridge candle".split()
    draw = random.Random(seed)
    return [" ".join(draw.choices(words, k=draw.randint(4, 60))) for _ in range(count)]


# --- both ---


def _compare(theirs: Callable[[], float], ours: Callable[[], float]) -> dict[str, float]:
    """The first round of each warms up and does not count."""
    theirs(), ours()
    pairs = [(theirs(), ours()) for _ in range(ROUNDS)]
    return {
        "library": round(max(rate for rate, _ in pairs)),
        "engine": round(max(rate for _, rate in pairs)),
        "ratio": round(statistics.median(own / other for other, own in pairs), 3),
    }


def _causal(folder: Path, sizes: Sizes) -> Path:
    config = hf.LlamaConfig(
        hidden_size=sizes.width,
        intermediate_size=sizes.width * 11 // 4,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads // 2,
        vocab_size=sizes.vocabulary,
        max_position_embeddings=4096,
    )
    return _write(hf.LlamaForCausalLM, config, folder)


def _encoder(folder: Path, sizes: Sizes) -> Path:
    config = hf.BertConfig(
        hidden_size=sizes.width,
        intermediate_size=4 * sizes.width,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        vocab_size=sizes.vocabulary,
        max_position_embeddings=512,
    )
    return _write(hf.BertModel, config, folder)


def _write(kind: Any, config: Any, folder: Path) -> Path:
    """Random weights, always the same, and the demo model's tokenizer made fit for an encoder with
    absolute positions: it pads at the end, and knows no chat."""
    torch.manual_seed(0)
    kind(config).eval().save_pretrained(folder)
    tokenizer = hf.AutoTokenizer.from_pretrained(bundled("demo"), padding_side="right")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    sys.exit(main())
