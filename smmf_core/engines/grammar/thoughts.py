"""What a model thinks before its answer: free text, behind which the answer's form begins.

Owns the rules for that text; must not read an answer.
"""

from __future__ import annotations

from smmf_core.engines.base import Tokenizer
from smmf_core.engines.grammar.tools import SpecialId
from smmf_core.engines.grammar.vocabulary import special_id
from smmf_core.messages import Submit

MARKS = {"deepseek_r1": ("<think>", "</think>"), "qwen3": ("<think>", "</think>")}
"""By the name of the format: what stands before and behind thoughts."""
NONE, MAY_BEGIN, OPEN = range(3)
_TAIL_TOKENS = 32  # of a prompt: its template may open a thought, or close one
_SPACE = "THOUGHT_SPACE: /[ \\n]{0,4}/\n"


def thought_state(name: str, submit: Submit, prompt: list[int], tokenizer: Tokenizer) -> int:
    """What an answer begins with, by how a chat's prompt ends. NONE where that is a closed thought:
    there shall be no other; and where an answer is gone on with."""
    if name not in MARKS or submit.messages is None:
        return NONE
    begin, end = MARKS[name]
    if submit.continue_final_message:
        content = str(submit.messages[-1].get("content") or "")
        return OPEN if content.rfind(begin) > content.rfind(end) else NONE
    marks = {special_id(tokenizer, mark): mark.encode() for mark in (begin, end)}
    pieces = [marks.get(id_) or tokenizer.token_bytes(id_) for id_ in prompt[-_TAIL_TOKENS:]]
    tail = b"".join(pieces).rstrip()
    if tail.endswith(end.encode()):
        return NONE
    return OPEN if tail.endswith(begin.encode()) else MAY_BEGIN


def thought_rules(name: str, state: int, special_id: SpecialId) -> str:
    """The rule `thought` of an answer that has one (`state` is not NONE), or may have."""
    begin, end = MARKS[name]
    begin_id, end_id = special_id(begin), special_id(end)
    rest = f"thought_rest: /(.|\\n)*/ <[{end_id}]> THOUGHT_SPACE\n"
    if end_id is None:
        closing = end.replace("/", "\\/")
        rest = (
            f"thought_rest: thought_text THOUGHT_SPACE\nthought_text[lazy]: /(.|\\n)*{closing}/\n"
        )
    first = f'"{begin}"' if begin_id is None else f"<[{begin_id}]>"
    thought = "thought_rest" if state == OPEN else f"({first} thought_rest)?"
    return f"thought: {thought}\n{rest}{_SPACE}"
