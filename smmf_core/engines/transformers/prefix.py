"""Computed prompts and answers that were kept, for requests that begin alike.

Owns the copies and their bound (tokens, least recently used first); must not know who runs.
"""

from __future__ import annotations

from smmf_core.engines.transformers.batch import Group
from smmf_core.engines.transformers.cache import Budget, Part

MIN_SHARED = 16  # tokens: below, copying is not worth the search


def shared(left: list[int], right: list[int]) -> int:
    """How many tokens two lists have in common at their fronts."""
    low, high = 0, min(len(left), len(right))
    if left[:high] == right[:high]:
        return high
    while low + 1 < high:  # left[:low] is equal, left[:high] is not
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low


class Entry:
    """Tokens of one group, and their keys and values in all layers."""

    __slots__ = ("group", "parts", "tokens")

    def __init__(self, group: Group, tokens: list[int], parts: list[Part]) -> None:
        self.group = group
        self.tokens = tokens
        self.parts = parts


class PrefixCache:
    """The latest used is last. `limit` tokens of all entries together; 0: nothing is kept."""

    def __init__(self, limit: int, budget: Budget) -> None:
        self.tokens = 0
        self._limit = limit
        self._budget = budget
        self._entries: list[Entry] = []
        self._by_head: dict[tuple[Group, tuple[int, ...]], list[Entry]] = {}

    def wants(self, group: Group, tokens: list[int]) -> bool:
        """Whether these tokens fit and no entry begins with them."""
        if not MIN_SHARED <= len(tokens) <= self._limit:
            return False
        return self.find(group, tokens)[0] < len(tokens)

    def add(self, group: Group, tokens: list[int], parts: list[Part]) -> None:
        """Keep copies of `parts`; entries that these tokens begin with are not needed any more."""
        for entry in list(self._alike(group, tokens)):
            if shared(entry.tokens, tokens) == len(entry.tokens):
                self._drop(entry)
        while self._entries and self.tokens + len(tokens) > self._limit:
            self._drop(self._entries[0])
        if not self._budget.fits(len(tokens)):
            return
        self._budget.take(len(tokens))
        self.tokens += len(tokens)
        copies = [(keys.clone(), values.clone()) for keys, values in parts]
        entry = Entry(group, tokens, copies)
        self._entries.append(entry)
        self._by_head.setdefault((group, tuple(tokens[:MIN_SHARED])), []).append(entry)

    def find(self, group: Group, tokens: list[int]) -> tuple[int, Entry | None]:
        """The longest common front; below MIN_SHARED: 0."""
        best, length = None, MIN_SHARED - 1
        for entry in self._alike(group, tokens):
            common = shared(entry.tokens, tokens)
            if common > length:
                best, length = entry, common
        if best is None:
            return 0, None
        self._entries.remove(best)
        self._entries.append(best)
        return length, best

    def free(self, cells: int) -> bool:
        """Drop what is needed for so many cells of the budget; false: it does not have them."""
        while self._entries and not self._budget.fits(cells):
            self._drop(self._entries[0])
        return self._budget.fits(cells)

    def clear(self) -> bool:
        """Drop all; true if there was anything."""
        had = bool(self._entries)
        for entry in list(self._entries):
            self._drop(entry)
        return had

    def drop_adapter(self, name: str) -> None:
        for entry in [entry for entry in self._entries if entry.group.adapter == name]:
            self._drop(entry)

    def _alike(self, group: Group, tokens: list[int]) -> list[Entry]:
        return self._by_head.get((group, tuple(tokens[:MIN_SHARED])), [])

    def _drop(self, entry: Entry) -> None:
        self._entries.remove(entry)
        alike = self._alike(entry.group, entry.tokens)
        alike.remove(entry)
        if not alike:
            del self._by_head[entry.group, tuple(entry.tokens[:MIN_SHARED])]
        self.tokens -= len(entry.tokens)
        self._budget.take(-len(entry.tokens))
