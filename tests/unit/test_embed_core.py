"""EmbedCore with real texts and rows: one end per request, errors cost their own request only."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from smmf_core import messages as m
from smmf_core.engines.base import EmbedSpec, EngineDead, Text
from smmf_core.worker.embed_batcher import EmbedBatcher
from smmf_core.worker.embed_core import EmbedCore
from smmf_core.worker.embed_loop import encode_step

ROUTER = (0, 1)


class Engine:
    """A text's tokens are its bytes; its vector is (their number, their sum, 1, ...)."""

    def __init__(self, **spec: Any) -> None:
        self.spec = EmbedSpec(**{"context_length": 100, "vocab_size": 256, "dimensions": 4, **spec})
        self.batches: list[int] = []
        self.largest = 1000  # texts that its memory holds

    def load(self, progress: Any) -> None: ...
    def close(self) -> None: ...

    def tokenize(
        self, texts: list[str | list[int]], query: str | None, max_tokens: int
    ) -> list[Text]:
        if "untokenizable" in texts:
            raise RuntimeError("no tokens")
        before = list((query or "").encode())
        ids = [list(t.encode()) if isinstance(t, str) else t for t in texts]
        return [Text(before + i[: max_tokens or None], len(before)) for i in ids]

    def encode(self, texts: list[Text]) -> np.ndarray[Any, Any]:
        self.batches.append(len(texts))
        if len(texts) > self.largest:
            raise MemoryError("too many")
        rows = np.ones((len(texts), 4), np.float32)
        for row, text in zip(rows, texts, strict=True):
            if bytes(text.ids) == b"poison":
                raise ValueError("poisoned")
            row[:2] = len(text.ids), sum(text.ids)
            if bytes(text.ids) == b"nan":
                row[2] = np.nan
        return rows


class Rig:
    def __init__(self, engine: Engine | None = None, max_texts: int = 8) -> None:
        self.engine = engine or Engine()
        batcher = EmbedBatcher(max_texts, 0, None, self.engine.spec.bucket_tokens)
        self.core = EmbedCore(self.engine.spec, self.engine.tokenize, batcher)
        self.core.add_router(ROUTER)
        self.key = 0

    def submit(self, *inputs: Any, **fields: Any) -> int:
        self.key += 1
        embed = m.Embed(self.key, 0, "r", "m", list(inputs), **fields)
        self.core.on_submit(ROUTER, embed, 0.0)
        return self.key

    def step(self) -> int:
        places = self.core.next(0.0)
        if places:
            encode_step(self.engine, self.core, places)
        return len(places)

    def run(self) -> None:
        while self.step():
            pass

    def records(self, key: int) -> list[m.Record]:
        return [record for record in self.core.out[ROUTER] if record[1] == key]

    def kinds(self, key: int) -> list[int]:
        return [record[0] for record in self.records(key)]

    def rows(self, key: int) -> Any:
        vectors = msgspec.msgpack.decode(self.records(key)[1][5], type=m.Vectors)
        return np.frombuffer(vectors.data, "<f4").reshape(-1, vectors.dimensions)

    def error(self, key: int) -> m.Failure:
        assert self.kinds(key)[-1] == m.FAIL
        return msgspec.msgpack.decode(self.records(key)[-1][5], type=m.Failure)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_one_text(rig: Rig) -> None:
    key = rig.submit("abc")
    rig.run()
    assert rig.kinds(key) == [m.ADMIT, m.RESULT, m.FINISH]
    assert rig.records(key)[0][4] == 3  # prompt tokens
    assert rig.rows(key).tolist() == [[3.0, 294.0, 1.0, 1.0]]
    assert rig.records(key)[2][5] == (3).to_bytes(4, "little") + bytes(12)
    assert (len(rig.core), rig.core.waiting, rig.core.tokens) == (0, 0, 3)


def test_rows_come_in_the_order_of_the_inputs(rig: Rig) -> None:
    key = rig.submit("a" * 50, "b", "c" * 90, [1, 2, 3])
    rig.run()
    assert rig.rows(key)[:, 0].tolist() == [50, 1, 90, 3]
    vectors = msgspec.msgpack.decode(rig.records(key)[1][5], type=m.Vectors)
    assert vectors.tokens == [50, 1, 90, 3]


def test_requests_share_steps(rig: Rig) -> None:
    keys = [rig.submit("ab") for _ in range(6)]
    assert rig.step() == 6
    assert all(rig.kinds(key)[-1] == m.FINISH for key in keys)


def test_a_pair_is_the_query_and_the_document() -> None:
    rig = Rig(Engine(dimensions=1))
    key = rig.submit("doc", query="what")
    rig.run()
    assert rig.rows(key)[0, 0] == 7


def test_pairs_may_have_a_query_each() -> None:
    rig = Rig(Engine(dimensions=1))
    key = rig.submit("a", "b", queries=["what", "which one"])
    rig.run()
    assert rig.rows(key)[:, 0].tolist() == [5, 10]


def test_vectors_make_scores() -> None:
    """A query is computed once; steps are shared with requests for vectors."""
    rig = Rig()
    one = rig.submit("aaaa", "bb", query="aa", param="text_2")
    each = rig.submit("aaaa", "bb", queries=["aaaa", "x"], param="text_2")
    vectors = rig.submit("aaaa", "bb", "aa", "x")
    rig.run()
    units = rig.rows(vectors)
    units = units / np.linalg.norm(units, axis=1, keepdims=True)
    assert rig.rows(one) == pytest.approx((units[[2]] * units[:2]).sum(1, keepdims=True))
    assert rig.rows(each) == pytest.approx((units[[0, 3]] * units[:2]).sum(1, keepdims=True))
    assert rig.records(one)[0][4] == 2 + 4 + 2  # tokens
    assert rig.engine.batches[0] == 8
    for fields, name in (({"query": "q" * 101}, "text_1"), ({"queries": ["q" * 101]}, "text_1")):
        key = rig.submit("x", param="text_2", **fields)
        assert rig.error(key).param == name
    assert rig.error(rig.submit("x", "y" * 101, query="q", param="text_2")).param == "text_2[1]"


def test_a_text_above_the_context_names_itself() -> None:
    rig = Rig(Engine(dimensions=1))
    cases = {
        "input": rig.submit("x" * 101),
        "input[1]": rig.submit("x", "y" * 101),
        "documents[2]": rig.submit("x", "y", "z" * 99, query="qq", param="documents"),
        "documents[0]": rig.submit("z" * 99, query="qq", param="documents"),
        "text_2[1]": rig.submit("x", "z" * 99, queries=["qq", "rr"], param="text_2"),
    }
    rig.run()
    for name, key in cases.items():
        assert rig.kinds(key) == [m.FAIL]
        failure = rig.error(key)
        assert (failure.code, failure.param) == ("context_length_exceeded", name)
        assert "maximum context length is 100 tokens" in failure.message
        assert f"'{name}' has 101 tokens" in failure.message


@pytest.mark.parametrize(("max_tokens", "length"), [(-1, 100), (7, 7), (5000, 300)])
def test_a_text_is_cut_when_it_may_be(rig: Rig, max_tokens: int, length: int) -> None:
    key = rig.submit("x" * 300, max_tokens=max_tokens)
    rig.run()
    if length > 100:
        assert rig.error(key).code == "context_length_exceeded"
    else:
        assert rig.rows(key)[0, 0] == length


def test_tokens_outside_the_vocabulary(rig: Rig) -> None:
    key = rig.submit([1], [2, 256])
    failure = rig.error(key)
    assert (failure.code, failure.param) == ("invalid_value", "input[1]")


def test_a_text_without_tokens(rig: Rig) -> None:
    failure = rig.error(rig.submit("a", ""))
    assert (failure.code, failure.param) == ("invalid_value", "input[1]")


def test_a_tokenizer_that_fails_costs_its_request_only(rig: Rig) -> None:
    bad, good = rig.submit("untokenizable"), rig.submit("ok")
    rig.run()
    assert rig.error(bad).code == "internal_error"
    assert rig.kinds(good)[-1] == m.FINISH


def test_shorter_vectors_of_a_model_that_has_none(rig: Rig) -> None:
    failure = rig.error(rig.submit("x", dimensions=2))
    assert (failure.code, failure.param) == ("unsupported_value", "dimensions")
    key = rig.submit("x", dimensions=4)  # its own
    rig.run()
    assert rig.rows(key).shape == (1, 4)


def test_shorter_vectors_are_unit_vectors() -> None:
    rig = Rig(Engine(is_matryoshka=True))
    key = rig.submit("abc", dimensions=2)
    rig.run()
    whole = np.array([3.0, 294.0])
    assert np.allclose(rig.rows(key)[0], whole / np.linalg.norm(whole))
    assert "at most 4" in rig.error(rig.submit("x", dimensions=5)).message


def test_only_some_lengths_of_vectors() -> None:
    rig = Rig(Engine(is_matryoshka=True, matryoshka=[1, 2]))
    assert (
        "one of these numbers of dimensions: 1, 2"
        in rig.error(rig.submit("x", dimensions=3)).message
    )


def test_a_models_prompts() -> None:
    prompts = {"query": "find: ", "document": "doc: "}
    rig = Rig(Engine(prompts=prompts, default_prompt="document"))
    cases = {rig.submit("x"): 6, rig.submit("x", prompt_name="query"): 7, rig.submit([1]): 1}
    rig.run()
    assert {key: rig.rows(key)[0, 0] for key in cases} == cases
    failure = rig.error(rig.submit("x", prompt_name="other"))
    assert (failure.code, failure.param) == ("invalid_value", "prompt_name")
    assert "'query', 'document'" in failure.message


def test_a_cancelled_request_is_not_answered(rig: Rig) -> None:
    key = rig.submit(*["x"] * 20)
    rig.step()
    rig.core.on_cancel(ROUTER, key, 1)  # another attempt: late
    assert len(rig.core) == 1
    rig.core.on_cancel(ROUTER, key, 0)
    assert rig.step() == 0
    assert rig.kinds(key) == [m.ADMIT]
    assert len(rig.core) == rig.core.waiting == 0


def test_a_routers_end_cancels_its_requests(rig: Rig) -> None:
    rig.submit("x", "y")
    rig.core.on_router_gone(ROUTER)
    assert rig.core.out == {}
    assert rig.core.next(0.0) == []


def test_an_answer_that_cannot_be_delivered_is_dropped(rig: Rig) -> None:
    key = rig.submit("x", "y")
    rig.core.drop(ROUTER, key)
    rig.core.drop(ROUTER, key)
    assert len(rig.core) == 0


def test_what_is_not_a_number_fails_its_request(rig: Rig) -> None:
    bad, good = rig.submit("nan", "x"), rig.submit("ok")
    rig.run()
    assert "not a number" in rig.error(bad).message
    assert rig.kinds(good)[-1] == m.FINISH


def test_a_step_that_is_too_large_is_made_smaller() -> None:
    rig = Rig()
    rig.engine.largest = 2
    keys = [rig.submit("ab") for _ in range(8)]
    rig.run()
    assert all(rig.kinds(key)[-1] == m.FINISH for key in keys)
    assert rig.engine.batches[0] == 8


def test_a_text_that_no_step_survives_fails_its_request(rig: Rig) -> None:
    good = [rig.submit("ab") for _ in range(3)]
    bad = rig.submit("x", "poison", "y")
    good += [rig.submit("cd") for _ in range(3)]
    rig.run()
    assert rig.kinds(bad) == [m.ADMIT, m.FAIL]
    assert "poisoned" in rig.error(bad).message
    assert all(rig.kinds(key)[-1] == m.FINISH for key in good)
    assert len(rig.core) == rig.core.waiting == 0


def test_a_dead_engine_is_not_asked_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(texts: list[Text]) -> Any:
        raise EngineDead("gone")

    monkeypatch.setattr(rig.engine, "encode", die)
    keys = [rig.submit("ab"), rig.submit("cd")]
    with pytest.raises(EngineDead):
        rig.step()
    assert all(rig.kinds(key) == [m.ADMIT] for key in keys)


def test_a_dead_engine_fails_what_had_begun_and_leaves_the_rest(rig: Rig) -> None:
    begun = rig.submit(*["ab"] * 12)
    rig.step()
    failing = rig.submit("c")
    waiting = rig.submit(*["d"] * 20)
    places = [place for place in rig.core.next(0.0) if place[0] != 3]
    rig.core.fail_begun(places, EngineDead("gone"))
    assert rig.kinds(begun) == rig.kinds(failing) == [m.ADMIT, m.FAIL]
    assert rig.kinds(waiting) == [m.ADMIT]
    assert rig.core.tally.faults == 2


def test_the_tally_knows_whose_fault_it_was(rig: Rig) -> None:
    rig.submit("good")
    rig.submit("x" * 101)  # above the context: the client's
    rig.submit("poison")
    cancelled = rig.submit("later")
    rig.core.on_cancel(ROUTER, cancelled, 0)
    rig.run()
    tally = rig.core.tally
    assert (tally.finished, tally.faults) == (2, 1)
    assert tally.begun == [0.0]  # when the good one came
    ((request_id, error),) = tally.failed
    assert (request_id, str(error)) == ("r", "poisoned")


def test_dimensions_are_of_vectors() -> None:
    engine = Engine()
    engine.spec.dimensions = 4
    assert Rig(engine).core.dimensions == 4
    engine.spec.dimensions = 1
    assert Rig(engine).core.dimensions == 0


def test_open_requests_are_described(rig: Rig) -> None:
    rig.submit(*["ab"] * 10)
    rig.step()
    rig.submit("abc")
    first, second = rig.core.describe(10)
    assert (first.state, first.prompt_tokens, first.done) == ("running", 20, 8)
    assert (second.state, second.prompt_tokens, second.done) == ("waiting", 3, 0)
    assert rig.core.describe(1) == [first]
