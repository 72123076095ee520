"""The step loop of the transformers engine: who waits, who is computed, what is given up.

Owns all sequences and their batches; must not know how a model was loaded or what a token means.

A step is one pass over the answers, one column for every row, and one over a bounded chunk of the
prompts that join next. The passes are apart because a pass is a rectangle: an answer in a prompt's
pass would be computed as wide as the prompt's chunk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

import torch

from smmf_core.engines.base import Output, Sequence
from smmf_core.engines.host_memory import is_out_of_memory
from smmf_core.engines.transformers.batch import Batch, Group, Model, Row
from smmf_core.engines.transformers.cache import Budget
from smmf_core.engines.transformers.choose import TokenChooser
from smmf_core.engines.transformers.describe import describe_rows
from smmf_core.engines.transformers.loose import LooseBatch
from smmf_core.engines.transformers.passes import compute
from smmf_core.engines.transformers.plan import Candidate, choose
from smmf_core.engines.transformers.prefix import PrefixCache
from smmf_core.engines.transformers.reuse import Reuse
from smmf_core.engines.transformers.sampling import BatchSampler
from smmf_core.errors import ApiError

_MARGIN_COLUMNS = 32  # a row is let in when all could go on for so many tokens
_IDLE_PREFILL = 4  # times the usual tokens: a larger pass is a faster one
_DESCRIBED_COLUMNS = 128  # of prompts whose logprobs are wanted: bounds the logits of a pass


class Loop:
    """All is done on the Worker's one thread, inside inference_mode."""

    def __init__(
        self,
        model: Model,
        windows: list[int | None] | None,
        sampler: BatchSampler,
        budget: Budget,
        prefixes: PrefixCache,
        prefill_tokens: int,
        long_from: int,
    ) -> None:
        """`windows` None: rows are computed one by one. `long_from`: tokens above which a text is
        rotated with other frequencies, its first tokens, too; 0: there are no others."""
        self.waiting: deque[Row] = deque()
        self.preemptions = 0
        self._model = model
        self._windows = windows
        self._chooser = TokenChooser(sampler)
        self._sampler = sampler
        self.budget = budget
        self._prefixes = prefixes
        self._prefill_tokens = prefill_tokens
        self._long_from = long_from
        self._filling: Batch | None = None
        self._batches: dict[Group, Batch] = {}
        self.reuse = Reuse(prefixes, self._batches if windows else {})
        self._is_blocked = False  # memory ran out: nobody joins before somebody leaves

    @property
    def running(self) -> int:
        return sum(len(batch.rows) for batch in self._all_batches())

    def adapters(self) -> set[str]:
        """Of all sequences that have not left."""
        rows = [row for batch in self._all_batches() for row in batch.rows]
        return {row.group.adapter for row in [*rows, *self.waiting]}

    def add(self, sequence: Sequence, adapter: str) -> None:
        """Choices of one prompt wait in one row."""
        group = Group(adapter, self._is_long(sequence.prompt))
        wants = sequence.prompt_logprobs is not None
        for row in self.waiting:
            is_open = row.group == group and not wants and row.described is None
            if is_open and row.tokens == sequence.prompt:
                row.sequences.append(sequence)
                return
        row = Row([sequence], list(sequence.prompt), group)
        row.described = [] if wants else None
        self.waiting.append(row)

    def remove(self, gone: set[int]) -> None:
        self._is_blocked = False
        for batch in self._all_batches():
            for row in list(batch.rows):
                row.sequences = [s for s in row.sequences if s.id not in gone]
                if not row.sequences:
                    self.reuse.keep(batch, row)
                    batch.leave(row)
        if self._filling is not None and not self._filling.rows:
            self._filling = None
        for row in self.waiting:
            row.sequences = [s for s in row.sequences if s.id not in gone]
        self.waiting = deque(row for row in self.waiting if row.sequences)

    def step(self) -> list[Output]:
        outputs: list[Output] = []
        for group, batch in list(self._batches.items()):
            if self._long_from and not group.is_long:
                self._move_long(batch)
            if batch.rows:
                self._decode(batch, outputs)
            else:
                del self._batches[group]
        self._prefill(outputs)
        return outputs

    def close(self) -> None:
        self.waiting.clear()
        for batch in self._all_batches():
            batch.release()
        self._batches.clear()
        self._filling = None
        self._prefixes.clear()

    # --- answers ---

    def _is_long(self, tokens: list[int]) -> bool:
        return 0 < self._long_from < len(tokens)

    def _move_long(self, batch: Batch) -> None:
        """Rows that have become long are computed anew, with the others' frequencies."""
        rows = [row for row in batch.rows if self._is_long(row.tokens)]
        for row in rows:
            batch.leave(row)
            row.group = row.group._replace(is_long=True)
        self._wait_again(rows)

    def _decode(self, batch: Batch, outputs: list[Output]) -> None:
        if not self._make_room(batch, outputs):
            return
        computed = compute(batch, 1, 1, self._relieve)
        batch.advance(1)
        failed = [(batch.rows[index], error) for index, error in computed.errors.items()]
        rows = batch.rows
        if failed:
            rows = [row for index, row in enumerate(rows) if index not in computed.errors]
        if rows:
            failed += self._choose(batch, rows, computed.joined()[:, -1], outputs)
        if failed:
            outputs += self._give_up(batch, failed)

    def _choose(
        self, batch: Batch, rows: list[Row], logits: torch.Tensor, outputs: list[Output]
    ) -> list[tuple[Row, Exception]]:
        """The rows' next tokens; returns the rows that cannot have one."""
        chosen = self._chooser.choose(logits, [row.sequences[0] for row in rows])
        tokens, logprobs, errors, ended = chosen
        failed: list[tuple[Row, Exception]] = []
        for index, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            if index in errors:
                failed.append((row, errors[index]))
                continue
            row.tokens.append(token)
            best = logprobs[index] if logprobs is not None else None
            outputs.append(Output(row.sequences[0], token, best, ended=index in ended))
        batch.feed(tokens)
        return failed

    def _make_room(self, batch: Batch, outputs: list[Output]) -> bool:
        """For one more column. In need: kept prefixes go first, then the prefill under way, then
        the youngest answer is put back to be computed anew; the last one fails."""
        while batch.rows:
            try:
                batch.fit(len(batch.rows), 0, 1)
                return True
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                failure = error
            if self._relieve():
                continue
            if self._filling is not None:
                self._put_back(self._filling.rows)
                self._filling.release()
                self._filling = None
                continue
            youngest = max(batch.rows, key=lambda row: row.sequences[0].id)
            outputs += self._give_up(batch, [(youngest, failure)])
        return False

    # --- prompts ---

    def _prefill(self, outputs: list[Output]) -> None:
        if self._filling is None:
            self._start(outputs)
        batch = self._filling
        if batch is None:
            return
        described = batch.rows[0].described
        limit = self._prefill_limit()
        columns = batch.chunk(limit if described is None else min(limit, _DESCRIBED_COLUMNS))
        if batch.group.is_long:  # the pass sees by its last position that it is
            columns = max(columns, self._long_from + 1 - batch.past)
        computed = compute(batch, columns, 1 if described is None else 0, self._relieve)
        if described is not None and computed.logits:
            self._describe(batch, computed.joined()[0])
        batch.advance(columns)
        failed = [(batch.rows[index], error) for index, error in computed.errors.items()]
        rows = [row for index, row in enumerate(batch.rows) if index not in computed.errors]
        copies: list[tuple[Row, Row]] = []
        is_done = batch.past == batch.width
        if is_done and rows:
            copies = self._first_tokens(batch, rows, computed.joined()[:, -1], outputs)
        if failed:
            outputs += self._give_up(batch, failed)
        if is_done or not batch.rows:
            self._filling = None
            self._join(batch, copies)

    def _prefill_limit(self) -> int:
        """Tokens of one pass; more while no answer waits for it."""
        is_idle = not any(batch.rows for batch in self._batches.values())
        return self._prefill_tokens * (_IDLE_PREFILL if is_idle else 1)

    def _start(self, outputs: list[Output]) -> None:
        """Begin the prefill of waiting rows, as many as there is room for."""
        running = self.running
        if not self.waiting or (self._is_blocked and running):
            return
        group = self.waiting[0].group
        queue = (
            Candidate(row, self.reuse.find(row)[0]) for row in self.waiting if row.group == group
        )
        chosen = choose(queue, self._prefill_limit())
        while chosen and not self._has_room([candidate.row for candidate in chosen]):
            chosen.pop()
        if not chosen and running:
            self._is_blocked = True
            return
        rows = [candidate.row for candidate in chosen] or [self.waiting[0]]
        for row in rows:
            self.waiting.remove(row)
        try:
            self._filling = self._begin(rows)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            outputs += self._refuse(rows, error)

    def _begin(self, rows: list[Row]) -> Batch:
        if self._windows:
            batch = Batch(self._model, self._windows, self.budget, rows, self._spare(rows))
        else:
            batch = LooseBatch(self._model, self.budget, rows)
        try:
            batch.advance(min([row.pad + self.reuse.copy_to(batch, row) for row in rows]))
        except BaseException:
            batch.release()
            raise
        return batch

    def _spare(self, rows: list[Row]) -> int:
        """Columns for the answers, of rows that will not join others."""
        others = self._batches.get(rows[0].group)
        most = max(sequence.max_new_tokens for row in rows for sequence in row.sequences)
        return 0 if others is not None and others.rows else most

    def _has_room(self, rows: list[Row]) -> bool:
        """Whether the budget has these rows' prefill, and their place among the answers."""
        count, width = len(rows), max(len(row.tokens) for row in rows)
        cells = count * width
        batch = self._batches.get(rows[0].group)
        if batch is not None and batch.rows:
            joining = len(batch.rows) + sum(len(row.sequences) for row in rows)
            needed = joining * (max(batch.past, width) + _MARGIN_COLUMNS)
            cells += max(needed - batch.cells, 0)
        return self._prefixes.free(cells)

    def _describe(self, batch: Batch, logits: torch.Tensor) -> None:
        """Logprobs of the request's own prompt: row i foretells token i + 1."""
        row = batch.rows[0]
        sequence = row.sequences[0]
        first = batch.past - row.pad + 1
        tokens = row.tokens[first : min(first + len(logits), sequence.prompt_len)]
        assert row.described is not None
        row.described += describe_rows(logits, tokens, sequence.prompt_logprobs or 0)

    def _first_tokens(
        self, batch: Batch, rows: list[Row], logits: torch.Tensor, outputs: list[Output]
    ) -> list[tuple[Row, Row]]:
        """Choose for every sequence of the rows; returns the copies that are to be made."""
        places = [n for n, row in enumerate(rows) for _ in row.sequences]
        sequences = [sequence for row in rows for sequence in row.sequences]
        if len(places) > len(rows):
            logits = logits[places]
        tokens, logprobs, errors, ended = self._chooser.choose(logits, sequences)
        going: dict[int, list[tuple[Sequence, int]]] = {n: [] for n in places}
        for index, (place, sequence) in enumerate(zip(places, sequences, strict=True)):
            if index in errors:
                outputs.append(self._fail(sequence, errors[index]))
                continue
            token = int(tokens[index])
            best = logprobs[index] if logprobs is not None else None
            output = Output(sequence, token, best, ended=index in ended)
            output.prompt_logprobs = rows[place].described
            outputs.append(output)
            going[place].append((sequence, token))
        copies: list[tuple[Row, Row]] = []
        for row, chosen in zip(rows, going.values(), strict=True):
            row.described = None
            row.sequences = [sequence for sequence, _ in chosen[:1]]
            if not chosen:
                batch.leave(row, is_sound=False)
                continue
            copies += [(row, Row([s], [*row.tokens, t], row.group)) for s, t in chosen[1:]]
            row.tokens.append(chosen[0][1])
        return copies

    def _join(self, batch: Batch, copies: list[tuple[Row, Row]]) -> None:
        """The rows of a finished prefill become answers."""
        if not batch.rows:
            return
        rows = list(batch.rows)
        running = self._batches.get(batch.group)
        if running is None or not running.rows:
            self._batches[batch.group] = running = batch
        elif not self._has_memory(partial(running.join, batch)):
            batch.release()
            self._put_back([*rows, *[copy for _, copy in copies]])
            return
        for row, copy in copies:
            if not self._has_memory(partial(running.fork, row, copy)):
                self._put_back([copy])

    # --- what fails ---

    def _relieve(self) -> bool:
        """Give memory back that no sequence needs; false when there is none."""
        had = self._prefixes.clear()
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        return had

    def _has_memory(self, action: Callable[[], None]) -> bool:
        """Do it, for the second time if the first gave reason to free memory."""
        while True:
            try:
                action()
                return True
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            if not self._relieve():
                return False

    def _give_up(self, batch: Batch, failing: list[tuple[Row, Exception]]) -> list[Output]:
        """Rows leave a batch. Those that memory ran out for are put back, while others go on."""
        goes_on = self.running > len(failing)
        outputs: list[Output] = []
        put_back: list[Row] = []
        failing.sort(key=lambda pair: pair[0].sequences[0].id)
        for row, error in failing:
            batch.leave(row, is_sound=False)
            if is_out_of_memory(error) and (goes_on or row is not failing[-1][0]):
                put_back.append(row)
            else:
                outputs += [self._fail(sequence, error) for sequence in row.sequences]
        self._put_back(put_back)
        return outputs

    def _refuse(self, rows: list[Row], error: Exception) -> list[Output]:
        """Rows that could not begin: they wait for others to leave, or the last one fails."""
        if self._relieve() or self.running:
            self._put_back(rows)
            return []
        self._put_back(rows[:-1])
        return [self._fail(sequence, error) for sequence in rows[-1].sequences]

    def _put_back(self, rows: list[Row]) -> None:
        if not rows:
            return
        self.preemptions += len(rows)
        self._is_blocked = True
        self._wait_again(rows)

    def _wait_again(self, rows: list[Row]) -> None:
        for row in rows:
            if row.described is not None:
                row.described = []
        waiting = [*rows, *self.waiting]
        self.waiting = deque(sorted(waiting, key=lambda row: row.sequences[0].id))

    def _fail(self, sequence: Sequence, error: Exception) -> Output:
        self._sampler.remove([sequence.id])
        if is_out_of_memory(error):
            text = f"The model's memory has no room for this request: {error}"
            error = ApiError("internal_error", text)
        return Output(sequence, 0, error=error)

    def _all_batches(self) -> list[Batch]:
        batches = list(self._batches.values())
        return batches if self._filling is None else [*batches, self._filling]
