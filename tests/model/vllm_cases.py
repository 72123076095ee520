"""What the in-process vLLM engine does beyond the common contract. Run by test_vllm.py under the
interpreter that has vLLM."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import demo_path, open_engine
from lora import make_adapter, make_merged
from worker_rig import Worker

from smmf_core.engines.base import StepEngine
from smmf_core.messages import LENGTH, Sampling, Submit

CONTEXT = 512
STORY = "Tell me a story about a fox named Momo."
LONG = "My name is Ada. The fox was in the kitchen, and so was the cook. " * 18
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def json_form(schema: dict[str, object]) -> dict[str, object]:
    return {"type": "json_schema", "json_schema": {"name": "form", "schema": schema}}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("lora") / "one")


@pytest.fixture(scope="module")
def engine() -> Iterator[StepEngine]:
    """A KV cache of 8 blocks of 128 tokens, and one: five answers of two blocks do not fit."""
    engine = open_engine(
        "vllm",
        demo_path("vllm"),
        max_model_len=CONTEXT,
        num_gpu_blocks_override=9,
        max_num_seqs=12,
        enable_lora=True,
        max_loras=2,
        max_lora_rank=8,
    )
    yield engine
    engine.close()


@pytest.fixture
def worker(engine: StepEngine) -> Worker:
    return Worker(engine, engine.spec.max_sequences)


def encode(worker: Worker, text: str) -> list[int]:
    return worker.core.spec.tokenizer.encode(text, True)


def chat(worker: Worker, text: str) -> list[int]:
    template = worker.core.spec.chat_template
    assert template is not None
    messages = [{"role": "user", "content": text}]
    submit = Submit(1, 0, "r", "m", True, 1, messages, None, Sampling())
    return worker.core.spec.tokenizer.encode(template.render(submit), False)


def test_it_says_what_it_can(engine: StepEngine) -> None:
    spec = engine.spec
    assert spec.context_length == CONTEXT
    assert spec.max_sequences == 12
    assert {"chat", "completion", "logprobs", "structured_output", "adapters"} <= {
        *spec.capabilities
    }


def test_answers_are_the_same_when_the_kv_cache_runs_out(worker: Worker) -> None:
    texts = [f"{number} is a number. {STORY}" for number in range(6)]
    prompts = [encode(worker, text) for text in texts]
    alone = [worker.ask(prompt, 140, ignore_eos=True).ids for prompt in prompts]
    keys = [worker.submit(prompt, 140, ignore_eos=True) for prompt in prompts]
    worker.finish()
    assert [worker.answers[key].ids for key in keys] == alone
    assert all(worker.answers[key].choices[0].reason == LENGTH for key in keys)
    assert worker.engine.metrics()["preemptions_total"] > 0


def test_a_known_beginning_is_not_computed_again(worker: Worker) -> None:
    prompt = encode(worker, f"Once. {LONG}")
    first = worker.ask(prompt, 4)
    again = worker.ask(prompt, 4, n=2)
    assert len(prompt) > 256
    assert first.usage is not None
    assert again.usage is not None
    assert first.usage[2] == 0
    assert again.usage[2] == min(len(prompt), 2 * 256)  # whole blocks, in each choice
    metrics = worker.engine.metrics()
    assert metrics["prefix_cache_hits_total"] >= 512
    assert 0 < metrics["prefix_cache_hit_rate"] < 1


def test_its_figures_are_those_of_now(worker: Worker) -> None:
    keys = [worker.submit(encode(worker, STORY), 64, ignore_eos=True) for _ in range(3)]
    worker.step()
    worker.step()
    busy = worker.engine.metrics()
    worker.cancel(keys[0])
    worker.step()
    fewer = worker.engine.metrics()
    worker.finish()
    idle = worker.engine.metrics()
    assert [figures["running"] for figures in (busy, fewer, idle)] == [3, 2, 0]
    assert busy["kv_cache_usage"] > fewer["kv_cache_usage"] > idle["kv_cache_usage"] == 0


@pytest.mark.parametrize("text", [STORY, LONG])
def test_a_seed_gives_the_same_text_in_any_batch(worker: Worker, text: str) -> None:
    """The long prompts do not fit into one step together."""
    prompts = [encode(worker, f"{n}. {text}") for n in range(6)]
    fields = {"temperature": 1.2, "ignore_eos": True}
    alone = [worker.ask(p, 24, seed=n, **fields).ids for n, p in enumerate(prompts)]
    keys = [worker.submit(p, 24, seed=n, **fields) for n, p in enumerate(prompts)]
    other = worker.submit(prompts[0], 24, seed=99, **fields)
    worker.finish()
    assert [worker.answers[key].ids for key in keys] == alone
    assert worker.answers[other].ids != alone[0]


def test_a_continued_sample_draws_other_numbers(worker: Worker) -> None:
    """At another position with the same seed: not what the answer's beginning drew."""
    prompt = encode(worker, STORY)
    uniform = {"temperature": 2.0, "min_p": 0.0, "seed": 3, "ignore_eos": True}
    whole = worker.ask(prompt, 24, **uniform).ids
    again = worker.ask(prompt, 24, emitted=[whole[:12]], **uniform).ids
    assert len(again) == 12
    assert again != whole[:12]


def test_an_answer_keeps_its_schema(worker: Worker) -> None:
    prompt = chat(worker, "Who are you?")
    form = json_form(SCHEMA)
    answer = worker.ask(prompt, 100, response_format=form)
    value = json.loads(answer.choices[0].text)
    assert set(value) == {"name", "age"}
    for cut in (1, 5, len(answer.ids) - 1):
        rest = worker.ask(prompt, 100, response_format=form, emitted=[answer.ids[:cut]])
        assert rest.error is None
        assert rest.ids == answer.ids[cut:]


def test_a_beginning_that_does_not_fit_the_schema_is_refused(worker: Worker) -> None:
    prompt = encode(worker, "Who are you?")
    wrong = encode(worker, "I am")[1:]
    answer = worker.ask(prompt, 20, response_format=json_form(SCHEMA), emitted=[wrong])
    assert answer.error is not None


def test_a_wrong_schema_costs_its_request_only(worker: Worker) -> None:
    prompt = encode(worker, STORY)
    kept = worker.submit(prompt, 8)
    failed = worker.submit(prompt, 8, response_format=json_form({"type": "wrong"}))
    worker.finish()
    error = worker.answers[failed].error
    assert error is not None
    assert (error.code, error.param) == ("invalid_value", "response_format.json_schema.schema")
    assert len(worker.answers[kept].ids) == 8


def test_a_full_context_leaves_no_room_for_logprobs(worker: Worker) -> None:
    prompt = (encode(worker, LONG) * 2)[:CONTEXT]
    answer = worker.ask(prompt, 0, echo_prompt=True, logprobs=1)
    assert answer.error is not None
    assert answer.error.code == "context_length_exceeded"


def test_a_forced_token_leaves_no_other(worker: Worker) -> None:
    ids = worker.ask(encode(worker, STORY), 5, logit_bias={77: 100.0}, ignore_eos=True).ids
    assert ids == [77] * 5


def test_an_adapter_is_the_merged_model(worker: Worker, adapter: Path, tmp_path: Path) -> None:
    merged = Worker(open_engine("reference", make_merged(tmp_path / "merged", adapter)))
    prompts = [encode(worker, text) for text in (STORY, "What is a river?", "The")]
    plain = [worker.ask(prompt, 24, ignore_eos=True).ids for prompt in prompts]
    expected = [merged.ask(prompt, 24, ignore_eos=True).ids for prompt in prompts]
    assert plain != expected
    worker.engine.set_adapters({"one": str(adapter)})
    keys = [
        worker.submit(prompt, 24, ignore_eos=True, adapter=name)
        for prompt in prompts
        for name in ("one", "")
    ]
    worker.finish()
    answers = [worker.answers[key].ids for key in keys]
    assert answers[0::2] == expected
    assert answers[1::2] == plain


def test_an_adapter_goes_when_nothing_uses_it(worker: Worker, adapter: Path) -> None:
    prompt = encode(worker, STORY)
    worker.engine.set_adapters({"one": str(adapter)})
    expected = worker.ask(prompt, 30, ignore_eos=True, adapter="one").ids
    key = worker.submit(prompt, 30, ignore_eos=True, adapter="one")
    worker.step()
    worker.engine.set_adapters({})
    refused = worker.submit(prompt, 4, adapter="one")
    worker.finish()
    assert worker.answers[key].ids == expected
    assert worker.answers[refused].error is not None
    assert worker.answers[refused].error.code == "model_not_found"


def test_another_adapter_of_the_same_name_is_another(
    worker: Worker, adapter: Path, tmp_path: Path
) -> None:
    """Nothing of the former one's KV cache is taken for the new one's."""
    prompt = encode(worker, LONG)
    other = make_adapter(tmp_path / "other", seed=2)
    fields = {"ignore_eos": True, "logprobs": 5}
    found = []
    for number, path in enumerate((adapter, other, adapter)):
        merged = Worker(open_engine("reference", make_merged(tmp_path / f"{number}", path)))
        worker.engine.set_adapters({"one": str(path)})
        own = worker.ask(prompt, 1, adapter="one", **fields)
        (known,) = merged.ask(prompt, 1, **fields).choices[0].logprobs
        found.append([value for _, value in own.choices[0].logprobs[0].top])
        assert own.usage is not None
        assert own.usage[2] == 0
        assert found[-1] == pytest.approx([value for _, value in known.top], abs=1e-3)
    worker.engine.set_adapters({})
    assert found[1] != pytest.approx(found[0], abs=1e-2)


def test_a_bad_adapter_leaves_the_former_set(worker: Worker, adapter: Path, tmp_path: Path) -> None:
    worker.engine.set_adapters({"one": str(adapter)})
    with pytest.raises(FileNotFoundError, match="no LoRA adapter"):
        worker.engine.set_adapters({"one": str(adapter), "two": str(tmp_path)})
    large = make_adapter(tmp_path / "large", rank=16)
    with pytest.raises(ValueError, match="rank 16: max_lora_rank is 8"):
        worker.engine.set_adapters({"one": str(adapter), "two": str(large)})
    broken = make_adapter(tmp_path / "broken")
    (broken / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot load the adapter"):
        worker.engine.set_adapters({"one": str(adapter), "two": str(broken)})
    assert len(worker.ask(encode(worker, STORY), 4, ignore_eos=True, adapter="one").ids) == 4
    worker.engine.set_adapters({})


def test_nothing_is_left_behind(engine: StepEngine) -> None:
    assert engine.ready_at(0.0) == math.inf
    assert engine.metrics()["running"] == engine.metrics()["waiting"] == 0


def test_norms_and_activations_are_single_kernels(engine: StepEngine) -> None:
    """They compute what vLLM's chains of operations do; rows that lie apart go to the chains."""
    import torch
    from torch.testing import assert_close
    from vllm.ir import ops

    rows, more, weight = torch.randn(5, 64), torch.randn(5, 64), torch.rand(64)
    assert ops.rms_norm.dispatch(rows, weight, 1e-5).provider == "smmf_c"
    assert ops.fused_add_rms_norm.dispatch(rows, more, weight, 1e-5).provider == "smmf_c"
    for other in (torch.randn(64, 5).t(), torch.randn(5, 72)[:, :64], rows.double(), rows[:, :20]):
        assert ops.rms_norm.dispatch(other, weight, 1e-5).provider == "native"
        assert ops.fused_add_rms_norm.dispatch(other, more, weight, 1e-5).provider == "native"
        assert ops.fused_add_rms_norm.dispatch(rows, other, weight, 1e-5).provider == "native"
    known = ops.rms_norm.impls["native"].impl_fn(rows, weight, 1e-5)
    assert_close(ops.rms_norm(rows, weight, 1e-5), known)
    sums = ops.fused_add_rms_norm.impls["native"].impl_fn(rows, more, weight, 1e-5)
    assert_close(ops.fused_add_rms_norm(rows.clone(), more.clone(), weight, 1e-5), sums)
    runner = engine._core.model_executor.driver_worker.model_runner  # type: ignore[attr-defined]
    layers = [layer for layer in runner.model.modules() if "SiluAndMul" in type(layer).__name__]
    assert layers
    for layer in layers:
        for given in (rows, rows[:0], rows[:, ::2], rows[:, :40].contiguous(), rows.bfloat16()):
            assert_close(layer(given), layer.forward_native(given))
        assert layer.forward_cpu.__module__ == "smmf_core.engines.vllm.kernels"
