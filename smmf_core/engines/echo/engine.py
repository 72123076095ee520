"""The echo engine: deterministic words at a settable rate, with settable failures.

It measures the framework (an engine that costs next to nothing) and injects faults. Owns no model;
must not depend on anything but the request and its settings.
"""

from __future__ import annotations

import itertools
import math
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import msgspec

from smmf_core.config import ModelConfig
from smmf_core.config.engine_options import EchoOptions
from smmf_core.engines.base import EmbedEngine, EngineSpec, Logprobs, Output, Sequence
from smmf_core.engines.echo.script import script
from smmf_core.engines.grammar.form import is_free, wanted_schema
from smmf_core.errors import ApiError
from smmf_core.messages import Submit

_SHIFT = 24  # a token's upper byte: 0 for a word, else how many raw bytes the lower three hold
_WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "small",
    "green",
    "birds",
    "sing",
    "in",
    "old",
    "trees",
    "and",
    "every",
    "river",
    "finds",
    "its",
    "own",
    "slow",
    "way",
    "down",
    "to",
    "the",
    "wide",
    "blue",
    "sea",
    "where",
    "ships",
    "wait",
    "for",
    "wind",
]
_PIECES = [b" " + word.encode() for word in _WORDS]
_WORD_IDS = list(range(len(_PIECES)))


class EchoTokenizer:
    """Words by number, and any text as groups of up to three bytes: stateless, so that token ids
    mean the same in every process."""

    vocab_size = 4 << _SHIFT
    eos_ids: frozenset[int] = frozenset()

    def encode(self, text: str, add_special: bool) -> list[int]:
        raw = text.encode("utf-8", "replace")
        groups = iter(raw)
        full = 3 << _SHIFT
        ids = [full | a | b << 8 | c << 16 for a, b, c in zip(groups, groups, groups, strict=False)]
        rest = len(raw) % 3
        if rest:
            ids.append(rest << _SHIFT | int.from_bytes(raw[-rest:], "little"))
        return ids

    def token_bytes(self, token: int) -> bytes:
        if token < len(_PIECES):
            return _PIECES[token]
        size = token >> _SHIFT
        if not size:
            return _PIECES[token % len(_PIECES)]
        return (token & 0xFFFFFF).to_bytes(3, "little")[:size]

    def is_special(self, token: int) -> bool:
        return False


class EchoTemplate:
    """The messages' texts, one a line."""

    def render(self, submit: Submit) -> str:
        lines = [f"{m.get('role')}: {m.get('content') or ''}" for m in submit.messages or []]
        return "\n".join(lines)


class _State:
    """One sequence's script: which tokens, when the next is due, where it fails."""

    __slots__ = (
        "at",
        "count",
        "due",
        "fail",
        "fail_at",
        "is_special",
        "output",
        "step_s",
        "tokens",
    )

    def __init__(self, sequence: Sequence, settings: EchoOptions, now: float) -> None:
        script = _script(sequence.submit, settings)
        self.tokens = script or _WORD_IDS
        self.count = len(script) if script is not None else settings.tokens
        self.count = max(self.count, sequence.params.min_tokens, 1)
        if sequence.params.ignore_eos:  # it never ends: the length does
            self.count = sequence.max_new_tokens + 1
        self.at = len(sequence.prompt) - sequence.prompt_len
        self.step_s = settings.step_ms / 1000
        self.due = _on_grid(now + settings.prefill_ms / 1000, self.step_s)
        self.fail, _, fail_at = settings.fail.partition(":")
        self.fail_at = int(fail_at) if fail_at else 0
        self.output = Output(sequence, 0)
        self.is_special = bool(self.fail) or sequence.params.logprobs is not None

    def advance(self) -> Output:
        """The next token. The Output is the same object each time: it is consumed at once."""
        at, output, tokens = self.at, self.output, self.tokens
        output.token = tokens[at % len(tokens)]
        if self.is_special:
            self._inject()
            self._describe()
        self.at = at = at + 1
        output.ended = at >= self.count
        return output

    def _inject(self) -> None:
        if not self.fail or self.at + 1 != self.fail_at:
            return
        if self.fail == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.fail == "hang":
            while True:
                time.sleep(3600)
        elif self.fail == "error":
            self.output.error = RuntimeError("the echo engine was told to fail here")

    def _describe(self) -> None:
        output, sequence = self.output, self.output.sequence
        best = sequence.params.logprobs
        if best is None:
            return
        output.logprobs = _logprobs(output.token, best)
        is_first = self.at + sequence.prompt_len == len(sequence.prompt)
        wanted = is_first and sequence.prompt_logprobs is not None
        rest = sequence.prompt[1:] if wanted else []
        output.prompt_logprobs = [_logprobs(t, best) for t in rest] if wanted else None


class EchoEngine:
    """A StepEngine without a model. Steps lie on a common grid of `step_ms`, as a real engine's do:
    all sequences of one rate get their token together."""

    def __init__(self, config: ModelConfig) -> None:
        self.settings = _settings({}, config.engine)
        self.spec = EngineSpec(
            context_length=self.settings.max_model_len,
            tokenizer=EchoTokenizer(),
            chat_template=EchoTemplate(),
            capabilities=_capabilities(self.settings),
            check=self._check,
            warms_up=False,  # its failures are for those who ask for them
            tool_format=_format(self.settings.tool_format),
            reasoning_format=_format(self.settings.reasoning_format),
        )
        self._running: dict[int, _State] = {}
        self._next = math.inf

    def load(self, progress: Callable[[float], None]) -> None:
        """Sleeps `load_s`; raises RuntimeError with `fail = "load"`."""
        began = time.monotonic()
        while (passed := time.monotonic() - began) < self.settings.load_s:
            progress(passed / self.settings.load_s)
            time.sleep(min(0.05, self.settings.load_s - passed))
        if self.settings.fail == "load":
            raise RuntimeError("the echo engine was told to fail its load")

    def add(self, sequences: list[Sequence]) -> None:
        now = time.monotonic()
        for sequence in sequences:
            state = _State(sequence, self._settings_of(sequence.submit), now)
            self._running[sequence.id] = state
            self._next = min(self._next, state.due)

    def _settings_of(self, submit: Submit) -> EchoOptions:
        if not submit.echo:
            return self.settings
        return _settings(submit.echo, msgspec.to_builtins(self.settings))

    def _check(self, submit: Submit) -> None:
        self._settings_of(submit)
        if not is_free(submit):
            wanted_schema(submit.response_format or {})

    def remove(self, sequences: list[Sequence]) -> None:
        for sequence in sequences:
            self._running.pop(sequence.id, None)
        if not self._running:
            self._next = math.inf

    def ready_at(self, now: float) -> float:
        return self._next

    def step(self) -> list[Output]:
        now = time.monotonic()
        outputs: list[Output] = []
        following = math.inf
        for state in self._running.values():
            due = state.due
            if due <= now:
                if state.is_special:
                    outputs.append(state.advance())
                else:  # the same without the call: what this engine costs, every figure has in it
                    output, tokens, at = state.output, state.tokens, state.at
                    output.token = tokens[at % len(tokens)]
                    state.at = at = at + 1
                    output.ended = at >= state.count
                    outputs.append(output)
                if state.step_s:
                    due = state.due = max(due + state.step_s, _on_grid(now, state.step_s))
            if due < following:
                following = due
        self._next = following
        return outputs

    def close(self) -> None:
        self._running.clear()


def _settings(own: dict[str, Any], defaults: dict[str, Any]) -> EchoOptions:
    """Raises ApiError (param `smmf_echo`) for unknown or mistyped settings."""
    try:
        return msgspec.convert({**defaults, **own}, EchoOptions, strict=False)
    except msgspec.ValidationError as error:
        raise ApiError("invalid_value", f"smmf_echo: {error}", "smmf_echo") from None


def _script(submit: Submit, settings: EchoOptions) -> list[int] | None:
    """The tokens of the answer, or None for plain words."""
    text = script(submit, settings)
    return None if text is None else EchoTokenizer().encode(text, False)


def _capabilities(settings: EchoOptions) -> list[str]:
    formats = {"tools": settings.tool_format, "reasoning": settings.reasoning_format}
    found = [name for name, form in formats.items() if _format(form)]
    return ["chat", "completion", "logprobs", "structured_output", *found]


def _format(name: str) -> str:
    return "" if name == "none" else name


def _on_grid(when: float, step_s: float) -> float:
    return math.ceil(when / step_s) * step_s if step_s else when


def _logprobs(token: int, best: int) -> Logprobs:
    others = (t for t in range(len(_PIECES)) if t != token)
    ranked = [token, *itertools.islice(others, max(0, best - 1))]
    top = [(t, -0.25 * (rank + 1)) for rank, t in enumerate(ranked[:best])]
    return -0.25, top


def create(config: ModelConfig) -> EchoEngine | EmbedEngine:
    if config.model.task == "generate":
        return EchoEngine(config)
    from smmf_core.engines.echo.embed import EchoEmbedEngine

    return EchoEmbedEngine(config, EchoTokenizer())
