"""The grammars of one model: checked before a request is taken, compiled once per form.

Owns the cache and the vocabulary; must not import llguidance before a request asks for a form.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from smmf_core.engines.base import Sequence, Tokenizer
from smmf_core.engines.grammar.constraint import Compiled, Constraint, mask_words
from smmf_core.engines.grammar.form import FORMAT_PARAM, Form, answer_form, is_free, refused
from smmf_core.engines.grammar.thoughts import NONE, thought_rules, thought_state
from smmf_core.engines.grammar.tools import must_call
from smmf_core.engines.grammar.vocabulary import make_vocabulary, special_id
from smmf_core.engines.grammar.wrap_up import Endings
from smmf_core.errors import ApiError
from smmf_core.messages import Submit

if TYPE_CHECKING:
    from llguidance import LLTokenizer

    from smmf_core.engines.prompt.side import PromptSide

CAPABILITY = "structured_output"
_PACKAGE = "llguidance"
_KEPT = 32  # compiled grammars
_TRIAL_TOKENS = 4  # what is too large for a mask shows within the first tokens
_REASON_CHARACTERS = 300  # of the library's words in ours


class Grammars:
    """`tool_format`: how the model writes calls (grammar.tools). `wrap_up_after`: tokens of an
    answer after which it is brought to its end (grammar.wrap_up); 0: never. `reasoning_format`: how
    it writes thoughts (grammar.thoughts), which go before what is in a form."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocab_size: int,
        tool_format: str = "",
        wrap_up_after: int = 0,
        reasoning_format: str = "",
    ) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._tool_format = tool_format
        self._reasoning_format = reasoning_format
        self._special_id = partial(special_id, tokenizer)
        self._ends = sorted(end for end in tokenizer.eos_ids if 0 <= end < vocab_size)
        self._vocabulary: LLTokenizer | None = None
        self._wrap_up_after = wrap_up_after
        self._endings: Endings | None = None
        self._compiled: OrderedDict[bytes, Compiled] = OrderedDict()

    @property
    def capabilities(self) -> list[str]:
        return [CAPABILITY] if is_installed() else []

    def check(self, submit: Submit) -> None:
        """Raises ApiError (400) for a form that the answer cannot be held to."""
        self._find(submit, NONE)

    def bind(self, sequence: Sequence) -> Constraint | None:
        """The constraint of a sequence, gone on to where its tokens end; None: it is free.
        Raises ApiError."""
        thought, submit = NONE, sequence.submit
        if self._reasoning_format and not _is_unbound(submit):
            prompt = sequence.prompt[: sequence.prompt_len]
            thought = thought_state(self._reasoning_format, submit, prompt, self._tokenizer)
        compiled = self._find(submit, thought)
        if compiled is None:
            return None
        return Constraint(compiled, sequence.prompt[sequence.prompt_len :])

    def _find(self, submit: Submit, thought: int) -> Compiled | None:
        if _is_unbound(submit):
            return None
        key = msgspec.msgpack.encode(
            [
                submit.response_format,
                submit.tools,
                submit.tool_choice,
                submit.parallel_tool_calls,
                thought,
            ]
        )
        compiled = self._compiled.get(key)
        if compiled is not None:
            self._compiled.move_to_end(key)
            return compiled
        if not is_installed():
            text = f"Answers in a form need a package that is not here: pip install {_PACKAGE}"
            param = "tool_choice" if is_free(submit) else FORMAT_PARAM
            raise ApiError("unsupported_value", text, param)
        before = ""
        if thought != NONE:
            before = thought_rules(self._reasoning_format, thought, self._special_id)
        form = answer_form(submit, self._tool_format, self._special_id, before)
        assert form is not None
        self._compiled[key] = compiled = self._compile(form, submit)
        if len(self._compiled) > _KEPT:
            self._compiled.popitem(last=False)
        return compiled

    def _compile(self, form: Form, submit: Submit) -> Compiled:
        vocabulary = self._vocabulary
        if vocabulary is None:
            vocabulary = make_vocabulary(self._tokenizer, self._vocab_size)
            self._vocabulary = vocabulary
            if self._wrap_up_after:
                words = mask_words(vocabulary)
                self._endings = Endings(self._tokenizer, words, self._wrap_up_after)
        try:
            compiled = Compiled(vocabulary, form.grammar, self._ends, self._endings)
            self._try(compiled)
        except ValueError as error:
            reason = " ".join(str(error).split())[:_REASON_CHARACTERS]
            if form.param == "tool_choice":
                text = f"These tools cannot be forced: {reason}"
                raise ApiError("invalid_value", text, form.param) from None
            raise refused(submit.response_format, reason) from None
        return compiled

    def _try(self, compiled: Compiled) -> None:
        """Write the beginning of an answer. Raises ValueError when there is none."""
        constraint = Constraint(compiled, [])
        mask = np.zeros(compiled.words, np.int32)
        try:
            for _ in range(_TRIAL_TOKENS):
                constraint.fill(mask)
                allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
                if not len(allowed):
                    raise ValueError("no answer follows it.")
                constraint.accept(int(allowed[len(allowed) // 2]))
                if constraint.is_over:
                    return
        except ApiError:
            raise ValueError("no answer follows it within a grammar's limits.") from None


def grammars_of(side: PromptSide, vocab_size: int) -> Grammars:
    """Those of a model folder. `vocab_size`: the width of its logits."""
    return Grammars(
        side.tokenizer,
        vocab_size,
        side.formats.tools,
        side.wrap_up_after,
        side.formats.thoughts,
    )


def _is_unbound(submit: Submit) -> bool:
    return is_free(submit) and not must_call(submit.tools, submit.tool_choice)


def is_installed() -> bool:
    return find_spec(_PACKAGE) is not None
