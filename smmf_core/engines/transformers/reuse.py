"""Tokens that a new prompt shares with running or ended sequences: found, copied, kept.

Owns no tokens itself; must not decide who runs.
"""

from __future__ import annotations

from smmf_core.engines.host_memory import is_out_of_memory
from smmf_core.engines.transformers.batch import Batch, Group, Row
from smmf_core.engines.transformers.cache import Part
from smmf_core.engines.transformers.prefix import MIN_SHARED, Entry, PrefixCache, shared


class Reuse:
    """`batches` are the running ones, by group."""

    def __init__(self, prefixes: PrefixCache, batches: dict[Group, Batch]) -> None:
        self.tokens = 0  # copied in all
        self._prefixes = prefixes
        self._batches = batches

    def find(self, row: Row) -> tuple[int, Row | Entry | None]:
        """How many of its tokens are computed somewhere, and where. The last one never counts: its
        logits are wanted; nor does anything where the prompt's logprobs are."""
        if row.described is not None:
            return 0, None
        best, source = self._prefixes.find(row.group, row.tokens)
        found: Row | Entry | None = source
        batch = self._batches.get(row.group)
        if batch is not None:
            for other in batch.rows:
                if other.tokens[:MIN_SHARED] == row.tokens[:MIN_SHARED]:
                    common = min(shared(other.tokens, row.tokens), batch.cached(other))
                    if common > best:
                        best, found = common, other
        best = min(best, len(row.tokens) - 1)
        return (best, found) if best >= MIN_SHARED else (0, None)

    def copy_to(self, batch: Batch, row: Row) -> int:
        """Write what is found into a new batch's row; returns how many tokens that is."""
        length, source = self.find(row)
        if source is not None:
            batch.write_prefix(row, self._parts(source, length))
        self.tokens += length
        for index, sequence in enumerate(row.sequences):
            if len(row.tokens) == len(sequence.prompt):  # else it was put back
                sequence.cached_tokens = min(self._cached(row, index, length), sequence.prompt_len)
        return length

    def keep(self, batch: Batch, row: Row) -> None:
        """What a sequence that left has computed serves those that begin like it."""
        tokens = row.tokens[: batch.cached(row)]
        if not self._prefixes.wants(row.group, tokens):
            return
        try:
            self._prefixes.add(row.group, tokens, batch.read_prefix(row, len(tokens)))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._prefixes.clear()

    def _parts(self, source: Row | Entry, tokens: int) -> list[Part]:
        if isinstance(source, Row):
            return self._batches[source.group].read_prefix(source, tokens)
        return [(keys[:, :tokens], values[:, :tokens]) for keys, values in source.parts]

    def _cached(self, row: Row, index: int, found: int) -> int:
        """For a request's first choice what was found; another request in the same row shares all
        but the last token; a request's further choices are not counted twice."""
        first = row.sequences[0]
        if index == 0:
            return found
        return 0 if row.sequences[index].submit is first.submit else len(row.tokens) - 1
