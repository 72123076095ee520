"""WorkerCore on the real echo engine: every accepted request ends once, slots come back."""

from __future__ import annotations

from typing import Any

import msgspec

from smmf_core import messages as m
from smmf_core.config import Model, ModelConfig
from smmf_core.engines.base import EngineDead, Output
from smmf_core.engines.echo.engine import EchoEngine
from smmf_core.native._batcher import Batcher
from smmf_core.worker.core import WorkerCore

ROUTER = (0, 1)


class Rig:
    """A core and its engine, stepped by hand."""

    def __init__(self, batch: int = 8, **engine: Any) -> None:
        config = ModelConfig(model=Model(name="echo", backend="echo"), engine=engine)
        self.engine = EchoEngine(config)
        self.core = WorkerCore(self.engine.spec, Batcher(batch, 8192, 0.0, False))
        self.core.add_router(ROUTER)

    def submit(self, key: int = 1, stream: bool = True, n: int = 1, **fields: Any) -> None:
        sampling = fields.pop("sampling", {})
        prompts = fields.pop("prompts", ["hello"])
        submit = m.Submit(
            key=key,
            attempt=0,
            request_id="r",
            model="echo",
            stream=stream,
            n=n,
            messages=None,
            prompts=prompts,
            sampling=m.Sampling(**sampling),
            **fields,
        )
        self.core.on_submit(ROUTER, submit, 0.0)

    def step(self) -> None:
        self._remove()
        self.engine.add(self.core.admit(0.0))
        self.core.on_outputs(self.engine.step())
        self._remove()

    def _remove(self) -> None:
        self.engine.remove(self.core.left)
        self.core.left = []

    def run(self) -> list[m.Record]:
        for _ in range(1000):
            if not len(self.core):
                break
            self.step()
        records, self.core.out[ROUTER] = self.core.out[ROUTER], []
        return records


def text_of(records: list[m.Record], key: int = 1, choice: int = 0) -> str:
    own = [r for r in records if r[1] == key and r[3] == choice and r[0] == m.TOKENS]
    return b"".join(r[5][4 * r[4] :] for r in own).decode()


def kinds(records: list[m.Record], key: int = 1) -> list[int]:
    return [r[0] for r in records if r[1] == key]


def failure(records: list[m.Record]) -> m.Failure:
    assert records[-1][0] == m.FAIL
    return msgspec.msgpack.decode(records[-1][5], type=m.Failure)


def test_a_stream_is_admitted_then_flows_then_ends() -> None:
    rig = Rig(tokens=3)
    rig.submit()
    records = rig.run()
    assert kinds(records) == [m.ADMIT, m.TOKENS, m.TOKENS, m.TOKENS, m.CHOICE_END, m.FINISH]
    assert text_of(records) == " the quick brown"
    assert records[0][4] == 2  # "hello" as groups of three bytes
    assert records[-1][5] == (2).to_bytes(4, "little") + (3).to_bytes(4, "little") + bytes(8)
    assert rig.core.batcher.running == rig.core.batcher.waiting == 0


def test_length_ends_before_the_natural_end() -> None:
    rig = Rig(tokens=30)
    rig.submit(sampling={"max_tokens": 2})
    records = rig.run()
    assert [r[4] for r in records if r[0] == m.CHOICE_END] == [m.LENGTH]


def test_ignore_eos_fills_max_tokens() -> None:
    rig = Rig(tokens=2)
    rig.submit(sampling={"max_tokens": 9, "ignore_eos": True})
    assert sum(r[4] for r in rig.run() if r[0] == m.TOKENS) == 9


def test_a_stop_string_across_tokens_is_not_sent() -> None:
    rig = Rig(tokens=10)
    rig.submit(sampling={"stop": ["k bro"]})
    records = rig.run()
    assert text_of(records) == " the quic"
    assert [r[4:] for r in records if r[0] == m.CHOICE_END] == [(m.STOP, b"k bro")]


def test_aggregated_answers_come_in_one_record() -> None:
    rig = Rig(tokens=4)
    rig.submit(stream=False, n=2)
    records = rig.run()
    assert kinds(records) == [m.RESULT, m.FINISH]
    result = msgspec.msgpack.decode(records[0][5], type=m.Result)
    assert [choice.text for choice in result.choices] == [" the quick brown fox"] * 2


def test_a_whole_answer_that_takes_long_is_announced_once() -> None:
    rig = Rig(tokens=4)
    rig.submit(stream=False)
    rig.submit(key=2, stream=False)
    rig.core.on_cancel(ROUTER, 2, 0)
    due = rig.core.announce_at
    rig.core.announce(due - 0.01)
    assert kinds(rig.core.out[ROUTER]) == []
    rig.core.announce(due)
    rig.core.announce(due + 1)
    assert kinds(rig.core.out[ROUTER]) == [m.ADMIT]
    assert kinds(rig.core.out[ROUTER], 2) == []
    assert rig.core.announce_at == float("inf")
    assert kinds(rig.run())[-2:] == [m.RESULT, m.FINISH]


def test_logprobs_concatenate_to_the_text_also_with_stops() -> None:
    rig = Rig(tokens=6)
    rig.submit(stream=False, sampling={"logprobs": 2, "stop": ["brown"]})
    choice = msgspec.msgpack.decode(rig.run()[0][5], type=m.Result).choices[0]
    assert choice.text == " the quick "
    listed = b"".join(entry.token for entry in choice.logprobs or [])
    assert listed == b" the quick"  # the stop string's own tokens are not listed
    assert all(len(entry.top) == 2 for entry in choice.logprobs or [])


def test_half_characters_are_held_back_in_streams() -> None:
    rig = Rig(text="echo")
    rig.submit(prompts=["a€b€€ü"])
    records = rig.run()
    assert text_of(records) == "a€b€€ü"
    for record in records:
        if record[0] == m.TOKENS:
            record[5][4 * record[4] :].decode()  # each is valid UTF-8 of its own


def test_a_prompt_over_the_context_is_refused_before_a_step() -> None:
    rig = Rig(max_model_len=8)
    rig.submit(prompts=["x" * 60])
    assert failure(rig.core.out[ROUTER]).code == "context_length_exceeded"
    assert "maximum context length is 8 tokens" in failure(rig.core.out[ROUTER]).message
    assert len(rig.core) == 0


def test_an_explicit_max_tokens_over_the_context_is_refused() -> None:
    rig = Rig(max_model_len=20)
    rig.submit(sampling={"max_tokens": 19})
    assert failure(rig.core.out[ROUTER]).code == "context_length_exceeded"


def test_token_ids_outside_the_vocabulary_are_refused() -> None:
    rig = Rig()
    rig.submit(prompts=[[1, 1 << 30]])
    assert failure(rig.core.out[ROUTER]).code == "invalid_value"
    rig.submit(key=2, sampling={"logit_bias": {1 << 30: 1.0}})
    assert failure(rig.core.out[ROUTER]).param == "logit_bias"


def test_an_engine_error_fails_its_request_only() -> None:
    rig = Rig(tokens=4)
    rig.submit(key=1, echo={"fail": "error:2"})
    rig.submit(key=2)
    records = rig.run()
    assert kinds(records, 1)[-1] == m.FAIL
    assert text_of(records, 2) == " the quick brown fox"
    assert rig.core.batcher.running == 0


def test_unknown_echo_settings_are_the_requests_fault() -> None:
    rig = Rig()
    rig.submit(echo={"tokns": 3})
    rig.step()
    assert failure(rig.core.out[ROUTER]).param == "smmf_echo"


def test_cancel_gives_the_batch_place_back() -> None:
    rig = Rig(batch=1, tokens=100)
    rig.submit(key=1)
    rig.submit(key=2)
    rig.step()
    rig.core.on_cancel(ROUTER, 1, 0)
    assert kinds(rig.core.out[ROUTER], 2) == [m.ADMIT]
    rig.step()
    assert m.TOKENS in kinds(rig.core.out[ROUTER], 2)
    rig.core.on_cancel(ROUTER, 2, 1)  # another attempt: not this one
    assert len(rig.core) == 1


def test_a_dead_router_takes_its_requests_along() -> None:
    rig = Rig(tokens=100)
    rig.core.add_router((1, 1))
    rig.submit(key=1)
    rig.step()
    rig.core.on_router_gone(ROUTER)
    assert len(rig.core) == 0
    assert rig.core.batcher.running == 0


def test_emitted_tokens_are_replayed_in_silence() -> None:
    whole = Rig(tokens=6)
    whole.submit(sampling={"stop": ["wn fox ju"]})
    expected = text_of(whole.run())
    rig = Rig(tokens=6)
    rig.submit(sampling={"stop": ["wn fox ju"]}, emitted_ids=[[0, 1]])
    assert " the quick" + text_of(rig.run()) == expected


def test_completions_echo_the_prompt_with_logprobs() -> None:
    rig = Rig(tokens=2)
    sampling = {"logprobs": 1, "max_tokens": 0}
    rig.submit(stream=False, prompts=["hello!"], echo_prompt=True, sampling=sampling)
    choice = msgspec.msgpack.decode(rig.run()[0][5], type=m.Result).choices[0]
    assert choice.text == "hello!"
    assert [entry.logprob for entry in choice.logprobs or []] == [None, -0.25]


def test_the_logprobs_of_a_prompt_of_one_token_are_listed() -> None:
    rig = Rig(tokens=2)
    sampling = {"logprobs": 1, "max_tokens": 0}
    rig.submit(stream=False, prompts=["abc"], echo_prompt=True, sampling=sampling)
    choice = msgspec.msgpack.decode(rig.run()[0][5], type=m.Result).choices[0]
    assert choice.text == "abc"
    assert [(entry.token, entry.logprob) for entry in choice.logprobs or []] == [(b"abc", None)]


def test_a_bug_in_a_tokenizer_costs_the_request_that_meets_it() -> None:
    rig = Rig(tokens=2)

    def check(submit: m.Submit) -> None:
        if submit.key == 1:
            raise ZeroDivisionError("a tokenizer's bug")

    rig.engine.spec.check = check
    rig.submit(key=1)
    rig.submit(key=2)
    records = rig.run()
    assert kinds(records, 1) == [m.FAIL]
    assert failure([r for r in records if r[1] == 1]).code == "internal_error"
    assert kinds(records, 2)[-1] == m.FINISH


def test_failure_messages_fit_a_terminal_record() -> None:
    rig = Rig()
    rig.submit(echo={"x" * 2000: 1})
    rig.step()
    assert len(rig.core.out[ROUTER][-1][5]) <= m.FAILURE_BYTES


def test_the_tally_knows_whose_fault_it_was() -> None:
    rig = Rig(tokens=3)
    rig.submit(key=1)
    rig.submit(key=2, sampling={"max_tokens": 1 << 20})  # above the context: the client's
    rig.submit(key=3, echo={"fail": "error:2"})
    rig.submit(key=4, echo={"tokens": 1000})
    rig.step()
    rig.core.on_cancel(ROUTER, 4, 0)
    rig.run()
    tally = rig.core.tally
    assert (tally.finished, tally.faults) == (2, 1)
    ((request_id, error),) = tally.failed
    assert request_id == "r"
    assert "told to fail" in str(error)


def test_a_request_begins_once_with_its_first_token() -> None:
    rig = Rig(tokens=3)
    for key, now in ((1, 1.0), (2, 2.0)):
        submit = m.Submit(key, 0, "r", "echo", True, 2, None, ["hello"], m.Sampling())
        rig.core.on_submit(ROUTER, submit, now)
    rig.step()
    assert rig.core.tally.begun == [1.0, 2.0]
    rig.run()
    assert rig.core.tally.begun == [1.0, 2.0]


def test_a_dead_engine_fails_what_it_had_and_leaves_what_waited() -> None:
    rig = Rig(batch=3, tokens=100)
    for key in (1, 2, 3, 4):
        rig.submit(key=key)
    joined = rig.core.admit(0.0)
    assert [sequence.submit.key for sequence in joined] == [1, 2, 3]
    rig.core.on_outputs([Output(joined[0], 0), Output(joined[1], 0)])
    dead = EngineDead("gone", untouched=[joined[0], joined[2]])
    rig.core.fail_joined(dead, dead.untouched)
    records = rig.core.out[ROUTER]
    assert kinds(records, 1) == [m.ADMIT, m.TOKENS, m.FAIL]  # whatever is said of it
    assert kinds(records, 2) == [m.ADMIT, m.TOKENS, m.FAIL]
    assert kinds(records, 3) == kinds(records, 4) == [m.ADMIT]


def test_open_requests_are_described() -> None:
    rig = Rig(batch=1, tokens=5)
    rig.submit(key=1)
    rig.submit(key=2)
    rig.step()
    first, second = rig.core.describe(10)
    assert (first.request_id, first.state, first.done) == ("r", "running", 1)
    assert (second.state, second.done) == ("waiting", 0)
    assert rig.core.describe(1) == [first]
