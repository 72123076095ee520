"""A compiled grammar, and one answer's place in it: which tokens may come next.

Owns the matcher of llguidance and what happens at its limits; must not see logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from smmf_core.engines.grammar.wrap_up import Endings, Place
from smmf_core.errors import ApiError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

Words = NDArray[np.int32]
"""A mask: bit i of word j is token 32 * j + i."""

_LEXER_FUEL = 500_000  # to build what reads text: about 10 ms
_STEP_FUEL = 100_000  # of one mask: about 7 ms
_LEXER_STATES = 50_000  # of a grammar, of all its answers together: about 100 MB at most
_WORD = 32


def mask_words(vocabulary: LLTokenizer) -> int:
    return -(-vocabulary.vocab_size // _WORD)


class Compiled:
    """One grammar for one vocabulary. Answers share what it has worked out of the vocabulary, which
    grows until it is made anew."""

    def __init__(
        self,
        vocabulary: LLTokenizer,
        grammar: str,
        ends: list[int],
        endings: Endings | None = None,
    ) -> None:
        """Raises ValueError, in the library's words, for a grammar that it does not take."""
        self.endings = endings
        self.words = mask_words(vocabulary)
        self.ends = ends
        self._vocabulary = vocabulary
        self._grammar = grammar
        self._matcher: LLMatcher
        self.renew()

    def renew(self) -> None:
        import llguidance

        limits = llguidance.LLParserLimits(
            initial_lexer_fuel=_LEXER_FUEL,
            step_lexer_fuel=_STEP_FUEL,
            max_lexer_states=_LEXER_STATES,
            verbose_errors=False,
        )
        self._matcher = llguidance.LLMatcher(
            self._vocabulary, self._grammar, log_level=0, limits=limits
        )
        if self._matcher.is_error():
            raise ValueError(self._matcher.get_error())

    def matcher(self) -> LLMatcher:
        return self._matcher.deep_copy()


class Constraint:
    """One answer's. `output`: the tokens that it already has."""

    __slots__ = ("_compiled", "_matcher", "_place", "_tokens", "is_over")

    def __init__(self, compiled: Compiled, output: list[int]) -> None:
        """Raises ApiError when `output` does not follow the grammar."""
        self._compiled = compiled
        self._matcher = compiled.matcher()
        self._tokens: list[int] = []
        self._place = Place(compiled.endings) if compiled.endings is not None else None
        self.is_over = False  # nothing but an end may follow
        for token in output:
            self.accept(token)

    @property
    def words(self) -> int:
        """Of its masks."""
        return self._compiled.words

    def fill(self, mask: Words) -> None:
        """Write the mask of the next token: all ends when the answer may end, and only ends when
        nothing else may follow. Raises ApiError when the grammar grows beyond its limits."""
        if self.is_over:
            mask[:] = 0
            for end in self._compiled.ends:
                mask[end // _WORD] |= np.uint32(1 << end % _WORD).astype(np.int32)
            return
        self._compute(mask)
        if self._matcher.is_error():
            self._begin_anew()
            self._compute(mask)
            self._check()
        if self._place is not None:
            self._place.narrow(mask)

    def accept(self, token: int) -> None:
        """The token has been chosen. Raises ApiError for one that the mask forbids."""
        if self.is_over or token in self._compiled.ends:  # which `ignore_eos` makes tokens like any
            self.is_over = True
            return
        if not self._matcher.consume_token(token):
            self._begin_anew()
            self._matcher.consume_token(token)
            self._check()
        self._tokens.append(token)
        if self._place is not None:
            self._place.accept(token)
        self.is_over = self._matcher.is_stopped()

    def _compute(self, mask: Words) -> None:
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)

    def _begin_anew(self) -> None:
        """What other answers have made of the grammar may be what was too much."""
        self._compiled.renew()
        self._matcher = self._compiled.matcher()
        self._matcher.try_consume_tokens(self._tokens)

    def _check(self) -> None:
        if self._matcher.is_error():
            text = "The answer left its response_format: the grammar grew beyond its limits here."
            raise ApiError("invalid_value", text, "response_format")
