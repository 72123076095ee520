"""The MLX engine: continuous batching over mlx-lm's models, on Apple silicon or any CPU.

Owns the running sequences and what one step computes; must not know HTTP, rings or text beyond its
model's tokenizer. mlx-lm's own BatchGenerator is not used: its samplers know no seed per position,
and it computes a joining prompt ahead of the running answers however long it is. Its batch caches
are: they are what makes rows of different lengths one pass.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import msgspec

from smmf_core.config import ModelConfig
from smmf_core.config.engine_options import MlxOptions
from smmf_core.engines.base import EngineSpec, Logprobs, Output, Sequence
from smmf_core.engines.checks import check_tokens, refuse_adapter
from smmf_core.engines.grammar.compiler import Grammars, grammars_of
from smmf_core.engines.mlx import load as mlx_load
from smmf_core.engines.mlx.batch import Batch, Caches, Flight, Prefill, PrefixStore, Row
from smmf_core.engines.mlx.choose import choose, is_greedy, make_sampler
from smmf_core.engines.prompt.side import load_prompt_side
from smmf_core.errors import ApiError
from smmf_core.messages import Submit

_CLEAR_EVERY = 512  # steps between two returns of mlx's unused buffers, as mlx-lm does


class MlxEngine:
    """A StepEngine. A step takes one token of every answer and computes one chunk of prompts.

    While every row's choice is the arg max, the next pass is started before this one's tokens are
    looked at, so that Python works while mlx computes. Other rows are chosen on the host.

    What would not fit into memory waits, or goes back to waiting. A pass that fails nevertheless
    loses the caches, not the requests: all rows are computed anew, half as many at once; the one
    that fails alone is given up.
    """

    spec: EngineSpec

    def __init__(self, config: ModelConfig, options: MlxOptions) -> None:
        self._config = config
        self._options = options
        self._waiting: deque[Row] = deque()
        self._prefill: Prefill | None = None
        self._flight: Flight | None = None
        self._failed: list[Output] = []
        self._prefixes = PrefixStore(options.prefix_cache_mb << 20)
        self._max_rows = math.inf  # after a failed pass: as many as may run at once
        self._steps = 0
        self._evictions = 0
        self._vocab_size = 0
        self._batch: Batch
        self._grammars: Grammars

    # --- StepEngine ---

    def load(self, progress: Callable[[float], None]) -> None:
        """Raises OSError, ValueError or MemoryError, in one sentence."""
        device = mlx_load.use_device(self._config.deployment.device)
        folder = Path(self._config.model.path).expanduser()
        side = load_prompt_side(folder, self._config)
        loaded = mlx_load.load(folder, self._config, self._options, progress)
        self._vocab_size = loaded.vocab_size
        self._grammars = grammars_of(side, loaded.vocab_size)
        self._model = loaded.model
        self._batch = Batch(loaded.model)
        self._room = loaded.room
        self.spec = EngineSpec(
            loaded.context_length,
            side.tokenizer,
            side.chat_template,
            capabilities=[*side.capabilities, "logprobs", *self._grammars.capabilities],
            check=self._check,
            device=device,
            stop_strings=side.stop_strings,
            tool_format=side.formats.tools,
            reasoning_format=side.formats.thoughts,
        )

    def add(self, sequences: list[Sequence]) -> None:
        for sequence in sequences:
            try:
                check_tokens(sequence.prompt, self._vocab_size)
                if not self._room.fits(1, len(sequence.prompt)):
                    raise _no_room(sequence.prompt)
                self._waiting.append(self._row(sequence))
            except (ApiError, MemoryError) as error:
                self._failed.append(Output(sequence, 0, error=error))

    def remove(self, sequences: list[Sequence]) -> None:
        gone = {sequence.id for sequence in sequences}
        self._failed = [out for out in self._failed if out.sequence.id not in gone]
        self._waiting = deque(row for row in self._waiting if row.sequence.id not in gone)
        if self._prefill is not None:
            self._prefill.drop(gone)
            if not self._prefill.rows:
                self._prefill = None
        self._leave(gone)

    def ready_at(self, now: float) -> float:
        busy = self._batch.rows or self._waiting or self._prefill or self._failed
        return now if busy else math.inf

    def step(self) -> list[Output]:
        """One pass over the answers, one over prompts. What fails is given back with its error."""
        outputs, self._failed = self._failed, []
        try:
            outputs += self._advance()
        except Exception as error:  # mlx: out of memory, or a model that cannot take this
            outputs += self._recover(error)
        self._steps += 1
        if self._steps % _CLEAR_EVERY == 0:
            mx.clear_cache()
        return outputs

    def metrics(self) -> dict[str, float]:
        return {
            "active_memory_bytes": mx.get_active_memory(),
            "peak_memory_bytes": mx.get_peak_memory(),
            "kv_cache_bytes": sum(cache.nbytes for cache in self._batch.caches),
            "kv_cache_evictions": self._evictions,
            "prefix_cache_bytes": self._prefixes.bytes,
            "prefix_cache_reused_tokens": self._prefixes.reused_tokens,
        }

    def close(self) -> None:
        self._waiting.clear()
        self._prefill = self._flight = None
        self._prefixes.clear()
        self._batch.keep([], None)
        mx.clear_cache()

    def _check(self, submit: Submit) -> None:
        """Raises ApiError for what cannot be done."""
        refuse_adapter(submit)
        self._grammars.check(submit)

    # --- one step ---

    def _advance(self) -> list[Output]:
        """1. The answers' pass, if it is not under way. 2. A chunk of prompts. 3. Unless rows
        join: the answers' next pass. 4. The tokens of 1. 5. The joining rows join."""
        outputs = self._make_room()
        batch = self._batch
        flight = self._flight or (batch.launch() if batch.rows else None)
        self._flight = None
        joining = self._compute_prompts()
        if flight is not None:
            if joining is None and self._may_run_ahead():
                batch.inputs = flight.tokens
                self._flight = batch.launch()
            outputs += self._read(flight)
        if joining is not None:
            batch.extend(joining.rows, joining.caches())
        return outputs

    def _may_run_ahead(self) -> bool:
        rows = self._batch.rows
        return any(row.has_more for row in rows) and all(row.is_on_device for row in rows)

    def _compute_prompts(self) -> Prefill | None:
        """One chunk; returns the rows whose prompts are computed now."""
        prefill = self._prefill = self._prefill or self._next_prefill()
        if prefill is None:
            return None
        prefill.compute(self._options.prefill_step_size)
        if not prefill.is_done:
            return None
        self._prefill = None
        return prefill

    def _next_prefill(self) -> Prefill | None:
        """The first of those that wait, with as many more as fit into one padded chunk. Choices of
        one prompt wait one behind the other."""
        groups: list[list[Row]] = []
        reused: list[Caches | None] = []
        rows: list[Row] = []
        longest = 0
        while self._waiting and self._may_join(rows):
            row = self._waiting[0]
            describes = row.prompt_logprobs is not None  # needs logits: it is computed alone
            if rows and not describes and row.tokens == rows[-1].tokens:
                row.cached = rows[-1].cached
                groups[-1].append(row)
            else:
                row.cached, caches = self._find_prefix(row)
                longest = max(longest, len(row.tokens) - 1 - row.cached)
                area = longest * (len(groups) + 1)
                if rows and (describes or area > self._options.prefill_step_size):
                    break
                groups.append([row])
                reused.append(caches)
            row.sequence.cached_tokens = min(row.cached, row.sequence.prompt_len)
            rows.append(self._waiting.popleft())
            if describes:
                break
        return Prefill(self._model, groups, reused) if rows else None

    def _may_join(self, joining: list[Row]) -> bool:
        """Whether there is room for one more, the first of those that wait."""
        rows = [*self._batch.rows, *joining, self._waiting[0]]
        longest = max(len(row.tokens) for row in rows)
        return len(rows) <= self._max_rows and self._room.fits(len(rows), longest)

    def _make_room(self) -> list[Output]:
        """When the batch has grown beyond its room, the rows that joined last wait again; a row
        that does not fit alone fails."""
        rows = self._batch.rows
        count = len(rows)
        while count and not self._room.fits(count, max(len(row.tokens) for row in rows[:count])):
            count -= 1
        if count == len(rows):
            return []
        self._evict(rows[max(count, 1) :])
        if count:
            return []
        (row,) = self._batch.rows
        self._leave({row.sequence.id})
        return [Output(row.sequence, 0, error=_no_room(row.tokens))]

    def _evict(self, rows: list[Row]) -> None:
        """They are computed anew when there is room."""
        self._evictions += len(rows)
        self._waiting.extendleft(reversed(rows))
        self._leave({row.sequence.id for row in rows})

    def _find_prefix(self, row: Row) -> tuple[int, Caches | None]:
        if not self._prefixes.is_on or row.prompt_logprobs is not None:
            return 0, None
        return self._prefixes.find(row.tokens[:-1])

    def _read(self, flight: Flight) -> list[Output]:
        outputs = choose(self._batch.rows, flight, self._vocab_size)
        if self._flight is None:
            self._batch.inputs = mx.array([output.token for output in outputs])
        self._leave({out.sequence.id for out in outputs if out.error is not None})
        return outputs

    # --- rows ---

    def _row(self, sequence: Sequence) -> Row:
        params = sequence.params
        prompt = sequence.prompt[: sequence.prompt_len]
        output = sequence.prompt[sequence.prompt_len :]
        ends = self.spec.tokenizer.eos_ids
        bound = self._grammars.bind(sequence)
        sampler = make_sampler(params, prompt, output, ends, self._vocab_size, bound)
        draws = sampler is None and not is_greedy(params)
        described: list[Logprobs] | None = None if sequence.prompt_logprobs is None else []
        return Row(sequence, list(sequence.prompt), sampler, draws, prompt_logprobs=described)

    def _leave(self, gone: set[int]) -> None:
        rows = self._batch.rows
        kept = [n for n, row in enumerate(rows) if row.sequence.id not in gone]
        if len(kept) == len(rows):
            return
        if self._prefixes.is_on:
            for n in set(range(len(rows))) - set(kept):
                if (caches := self._batch.extract(n)) is not None:
                    self._prefixes.add(rows[n].tokens, caches)
        self._flight = self._batch.keep(kept, self._flight)
        if not kept:
            self._max_rows = math.inf

    def _recover(self, error: Exception) -> list[Output]:
        """After a failed pass: everything is computed anew, half as many rows at once."""
        rows = [*self._batch.rows, *(self._prefill.rows if self._prefill else [])]
        self._prefill = None
        self._prefixes.clear()
        self._flight = self._batch.keep([], None)
        mx.clear_cache()
        self._max_rows = max(1, len(rows) // 2)
        failed = []
        if len(rows) <= 1:
            failed = [Output(row.sequence, 0, error=error) for row in rows]
            rows = []
        for row in reversed(rows):
            row.prompt_logprobs = None if row.prompt_logprobs is None else []
            self._waiting.appendleft(row)
        return failed


def _no_room(tokens: list[int]) -> MemoryError:
    return MemoryError(f"{len(tokens)} tokens do not fit into the memory for the KV cache")


def create(config: ModelConfig) -> MlxEngine:
    """Raises ValueError for an unknown key in `[engine]`."""
    try:
        options = msgspec.convert(config.engine, MlxOptions)
    except msgspec.ValidationError as error:
        raise ValueError(f"[engine]: {error}") from None
    return MlxEngine(config, options)
