"""Trains the demo model for a given time and exports it; interrupt it and start it again to go on.

    python configs/demo/train/train.py --minutes 60 --work /tmp/demo --out configs/demo

It owns the optimisation only: the corpus makes the text, evaluate.py judges the result.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import batches as data
import corpus
import model as shape
import tokenizer as vocabulary
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM

SEED = 1
HELD_OUT_SEED = 2
TOKENIZER_DOCUMENTS = 12000
BATCHES_PER_STEP = 2  # of different widths, so that a step sees short and long documents
MATRIX_RATE, VECTOR_RATE = 0.02, 2e-3  # Muon for the matrices, AdamW for embeddings and norms
WARM_UP_STEPS = 60
FLOOR = 0.02  # share of the rate that is left at the end
REPORT_S, SAVE_S = 60.0, 300.0


def make_tokenizer(work: Path) -> Tokenizer:
    """The tokenizer of an earlier start, or a new one."""
    path = work / "tokenizer.json"
    if not path.exists():
        vocabulary.save(
            vocabulary.train(corpus.document(SEED, i)[0] for i in range(TOKENIZER_DOCUMENTS)),
            work,
            shape.CONTEXT,
        )
    return Tokenizer.from_file(str(path))


class Trainer:
    """The model, its optimisers and how far they are: what a checkpoint holds."""

    def __init__(self, model: LlamaForCausalLM, compiled: bool) -> None:
        self.model = model
        self.body = torch.compile(model.model, dynamic=False) if compiled else model.model
        matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
        rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.01),
            torch.optim.AdamW(
                rest, lr=VECTOR_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True
            ),
        ]
        self.step = self.tokens = self.document = 0
        self.spent_s = 0.0

    def loss(self, body: Callable[..., Any], ids: Tensor, learnt: Tensor) -> Tensor:
        """Summed cross-entropy of the learnt positions; only their logits are computed."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = body(input_ids=ids, use_cache=False).last_hidden_state
            logits = functional.linear(hidden[learnt], self.model.lm_head.weight)
        return functional.cross_entropy(
            logits.float(), ids.roll(-1, dims=1)[learnt], reduction="sum"
        )

    def learn(self, group: list[data.Batch], scale: float) -> float:
        """One step over a group of batches at `scale` times the full rates; the mean loss."""
        count = sum(int(learnt.sum()) for _, learnt in group)
        total = 0.0
        for ids, learnt in group:
            loss = self.loss(self.body, ids, learnt) / count
            loss.backward()
            total += loss.item()
            self.tokens += ids.numel()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser, rate in zip(self.optimisers, (MATRIX_RATE, VECTOR_RATE), strict=True):
            optimiser.param_groups[0]["lr"] = rate * scale
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        return total

    def held_out(self, group: list[data.Batch]) -> float:
        """Mean loss over documents that training never sees."""
        with torch.inference_mode():
            total = sum(self.loss(self.model.model, ids, learnt).item() for ids, learnt in group)
        return total / sum(int(learnt.sum()) for _, learnt in group)

    def save(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimisers": [o.state_dict() for o in self.optimisers],
            "progress": (self.step, self.tokens, self.document, self.spent_s),
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def resume(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.tokens, self.document, self.spent_s = state["progress"]


def rate_scale(step: int, share: float) -> float:
    """Warm-up, then half a cosine over the share of the time that is used up."""
    return min(1.0, (step + 1) / WARM_UP_STEPS) * (
        FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    )


def grouped(stream: Iterator[tuple[data.Batch, int]]) -> Iterator[tuple[list[data.Batch], int]]:
    """BATCHES_PER_STEP batches at a time."""
    while True:
        items = [next(stream) for _ in range(BATCHES_PER_STEP)]
        yield [batch for batch, _ in items], items[-1][1]


def run(trainer: Trainer, encoder: data.Encoder, work: Path, minutes: float) -> None:
    """Trains until `minutes` are spent, earlier runs included; reports and saves on the way."""
    checks = data.batches(encoder, HELD_OUT_SEED)
    held_out = [next(checks)[0] for _ in range(24)]
    last = reported = saved = time.monotonic()
    mean = 0.0
    for group, number in grouped(data.batches(encoder, SEED, trainer.document)):
        share = trainer.spent_s / (minutes * 60)
        if share >= 1:
            return
        loss = trainer.learn(group, rate_scale(trainer.step, share))
        trainer.document = number
        mean = loss if not mean else 0.98 * mean + 0.02 * loss
        now = time.monotonic()
        trainer.spent_s, last = trainer.spent_s + now - last, now
        if now - reported >= REPORT_S:
            print(
                f"{trainer.spent_s:.0f} s, step {trainer.step}, {trainer.tokens / 1e6:.1f} M tokens, "
                f"{trainer.tokens / trainer.spent_s:.0f} tokens/s, loss {mean:.4f}, held out {trainer.held_out(held_out):.4f}",
                flush=True,
            )
            reported = now
        if now - saved >= SAVE_S:
            trainer.save(work / "checkpoint.pt")
            saved = now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--minutes", type=float, default=60, help="time to train, interrupted runs included"
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for the tokenizer and checkpoints"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to export the model into")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--compile", action="store_true", help="compile the model (needs a C++ compiler)"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    torch._dynamo.config.recompile_limit = len(data.WIDTHS) * 2 + 2
    args.work.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(args.work)
    trainer = Trainer(shape.build(tokenizer.get_vocab_size()), args.compile)
    checkpoint = args.work / "checkpoint.pt"
    if checkpoint.exists():
        trainer.resume(checkpoint)
    run(trainer, data.Encoder(tokenizer), args.work, args.minutes)
    trainer.save(checkpoint)
    vocabulary.save(tokenizer, args.out, shape.CONTEXT)
    shape.export(trainer.model, args.out)


if __name__ == "__main__":
    main()
