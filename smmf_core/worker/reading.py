"""Which answers of a model are read for thoughts and calls of tools, and how.

Owns that choice; must not read. Most answers are not: they cost nothing here.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from smmf_core.engines.base import EngineSpec, Tokenizer
from smmf_core.errors import ApiError
from smmf_core.messages import Submit
from smmf_core.worker.parse import FORMATS, MARKS, Chain
from smmf_core.worker.parse.calls import CallParser
from smmf_core.worker.parse.formats import SPECIAL
from smmf_core.worker.parse.thoughts import Thoughts

FORCED_FORMAT = "hermes"  # of models that name none: the grammar has them write so
_ID_CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 24


class Reading:
    """One model's. `marks`: the text of special tokens that stand around calls and thoughts."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._thoughts = spec.reasoning_format
        pieces = [*SPECIAL.get(spec.tool_format, ()), *MARKS.get(self._thoughts, ())]
        self.marks = _special(spec.tokenizer, pieces)

    def applies(self, submit: Submit) -> bool:
        """Whether this request's answer is read."""
        if submit.messages is None:
            return False
        return bool(self._thoughts) or bool(self._format_of(submit))

    def check(self, submit: Submit) -> None:
        """Raises ApiError (400) where a call must be made and nothing makes the model do so."""
        if must_call(submit) and "structured_output" not in self._spec.capabilities:
            text = "This model cannot be forced to call a tool: use tool_choice 'auto'."
            raise ApiError("unsupported_value", text, "tool_choice")

    def chain(self, submit: Submit, choice: int, in_thought: bool) -> Chain:
        """`in_thought`: the prompt ends inside one."""
        form = self._format_of(submit)
        calls = None
        if form:
            functions = [tool["function"] for tool in submit.tools or []]
            tools = {f["name"]: f.get("parameters") or {} for f in functions}
            is_one = is_named(submit.tool_choice) or not submit.parallel_tool_calls
            new_id = _ids(submit.request_id, choice)
            calls = CallParser(FORMATS[form], tools, 1 if is_one else None, new_id)
        thoughts = Thoughts(self._thoughts, in_thought) if self._thoughts else None
        return Chain(thoughts, calls)

    def ends_in_thought(self, prompt: str, submit: Submit) -> bool:
        """Whether a chat's prompt opens a thought that the answer begins in."""
        opening, closing = MARKS[self._thoughts]
        if not submit.continue_final_message:
            return prompt.rstrip().endswith(opening)
        content = str((submit.messages or [{}])[-1].get("content") or "")
        return content.rfind(opening) > content.rfind(closing)

    def _format_of(self, submit: Submit) -> str:
        if not submit.tools or submit.tool_choice == "none":
            return ""
        return self._spec.tool_format or (FORCED_FORMAT if must_call(submit) else "")


def must_call(submit: Submit) -> bool:
    """Whether the answer has to be a call."""
    choice = submit.tool_choice
    if not submit.tools or not choice:
        return False
    if isinstance(choice, dict) and "allowed_tools" in choice:
        choice = choice["allowed_tools"].get("mode")
    return choice == "required" or isinstance(choice, dict)


def is_named(choice: Any) -> bool:
    """Whether a tool_choice names one function."""
    return isinstance(choice, dict) and "function" in choice


def _special(tokenizer: Tokenizer, pieces: list[str]) -> dict[int, bytes]:
    """Those of the pieces that are special tokens here."""
    token_id = getattr(tokenizer, "token_id", None)
    found: dict[int, bytes] = {}
    for piece in pieces:
        ids = [token_id(piece)] if token_id else tokenizer.encode(piece, add_special=False)
        if len(ids) == 1 and ids[0] is not None and tokenizer.is_special(ids[0]):
            found[ids[0]] = piece.encode()
    return found


def _ids(request_id: str, choice: int) -> Callable[[int], str]:
    """The same ids for the same request, wherever it goes on."""

    def new_id(index: int) -> str:
        source = f"{request_id}/{choice}/{index}".encode()
        number = int.from_bytes(blake2b(source, digest_size=20).digest(), "little")
        letters = ""
        for _ in range(_ID_LENGTH):
            number, rest = divmod(number, len(_ID_CHARACTERS))
            letters += _ID_CHARACTERS[rest]
        return f"call_{letters}"

    return new_id
