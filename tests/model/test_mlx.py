"""The MLX engine alone: every kind of cache in a batch, prefix reuse, failed passes, loading."""

from __future__ import annotations

import math
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import engines_env
import numpy as np
import pytest

engines_env.require("mlx")

import mlx.core as mx
from driver import Run, make_sequence
from engines import make_config
from mlx.utils import tree_flatten
from tiny import make_model, random_tensors, write_json, write_weights

from smmf_core.config.schema import Deployment, Optimization
from smmf_core.engines.mlx.batch import MIN_REUSED
from smmf_core.engines.mlx.engine import MlxEngine, create
from smmf_core.engines.prompt.text import read_json

TOKENS = 20
GREEDY = {"temperature": 0.0}
SIZES = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {},
    "gemma3_text": {
        "sliding_window": 24,
        "sliding_window_pattern": 2,
        "query_pre_attn_scalar": 16,
    },
    "mistral": {
        "sliding_window": 24,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "mamba2": {
        "num_heads": 8,
        "expand": 2,
        "state_size": 16,
        "conv_kernel": 4,
        "n_groups": 1,
        "use_bias": False,
        "use_conv_bias": True,
        "time_step_limit": [0.0, 100.0],
        "time_step_rank": 4,
        "chunk_size": 16,
        "layer_norm_epsilon": 1e-5,
    },
    "lfm2": {
        "norm_eps": 1e-5,
        "conv_bias": False,
        "conv_L_cache": 3,
        "block_dim": 64,
        "block_ff_dim": 96,
        "block_multiple_of": 8,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "full_attn_idxs": [1, 3],
    },
}
"""Full, windowed and no attention, experts, and both kinds of cache in one model."""


def open_engine(folder: Path, **engine: Any) -> MlxEngine:
    opened = create(make_config("mlx", folder, engine))
    opened.load(lambda done: None)
    return opened


def make_kind(folder: Path, kind: str) -> Any:
    """A tiny model of one of mlx-lm's architectures with random weights; returns it."""
    from mlx_lm.utils import _get_classes

    make_model(folder)
    config = {**SIZES, "model_type": kind, "eos_token_id": 1, **KINDS[kind]}
    write_json(folder / "config.json", config)
    model_class, args_class = _get_classes(config)
    mx.random.seed(1)
    model = model_class(args_class.from_dict(config))
    weights = {
        name: mx.random.normal(array.shape) * 0.3 if array.ndim > 1 else array
        for name, array in tree_flatten(model.parameters())
    }
    model.load_weights(list(weights.items()))
    model.eval()
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    return model


def greedy_of_mlx_lm(model: Any, prompt: list[int], tokens: int = TOKENS) -> list[int]:
    from mlx_lm.generate import generate_step

    return [int(token) for token, _ in generate_step(mx.array(prompt), model, max_tokens=tokens)]


def prompts() -> list[list[int]]:
    random = np.random.default_rng(3)
    lengths = (4, 1, 30, 60, 9, 0, 100, 17)
    return [[0, *random.integers(3, 300, length).tolist()] for length in lengths]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> MlxEngine:
    return open_engine(folder)


@pytest.fixture(scope="module")
def alone(engine: MlxEngine) -> list[list[int]]:
    """The greedy answer to each prompt."""
    answers = []
    for prompt in prompts():
        run = Run(engine)
        run.join(make_sequence(1, prompt, TOKENS, **GREEDY))
        run.finish()
        answers.append(run.tokens(1))
    return answers


# --- batching ---


@pytest.mark.parametrize("chunk", [16, 512])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_cache_in_a_batch(tmp_path: Path, kind: str, chunk: int) -> None:
    """Against mlx-lm's own generation of each prompt alone; prompts in one chunk and in several."""
    model = make_kind(tmp_path, kind)
    expected = [greedy_of_mlx_lm(model, prompt) for prompt in prompts()]
    run = Run(open_engine(tmp_path, prefill_step_size=chunk))
    for number, prompt in enumerate(prompts()):
        run.join(make_sequence(number, prompt, TOKENS, **GREEDY))
        for _ in range(number % 3):
            run.step()
    run.finish()
    assert [run.tokens(number) for number in range(len(expected))] == expected
    assert len({tuple(tokens) for tokens in expected}) == len(expected)


def test_greedy_and_sampled_rows_beside_each_other(
    engine: MlxEngine, alone: list[list[int]]
) -> None:
    """Rows that the host chooses come and go; the others notice nothing."""
    run = Run(engine)
    for number, prompt in enumerate(prompts()):
        run.join(make_sequence(number, prompt, TOKENS, **GREEDY))
        run.join(make_sequence(100 + number, prompt, 3, temperature=1.0, seed=number))
        run.step()
    run.finish()
    assert [run.tokens(number) for number in range(len(alone))] == alone


def test_a_long_prompt_holds_nobody_up(engine: MlxEngine, folder: Path) -> None:
    engine = open_engine(folder, prefill_step_size=16)
    run = Run(engine)
    run.join(make_sequence(1, [0, 5, 6], 60, **GREEDY))
    while not run.outputs[1]:
        run.step()
    run.join(make_sequence(2, [0, *range(3, 163)], 2, **GREEDY))
    before, steps = len(run.outputs[1]), 0
    while not run.outputs[2]:
        run.step()
        steps += 1
    assert steps >= 160 // 16
    assert len(run.outputs[1]) == before + steps
    run.finish()


@pytest.mark.parametrize("kind", ["gemma3_text", "mamba2"])
def test_choices_of_one_prompt_are_computed_once(tmp_path: Path, kind: str) -> None:
    """Also when some of them leave while the prompt is under way."""
    make_kind(tmp_path, kind)
    engine = open_engine(tmp_path, prefill_step_size=16)
    prompt = prompts()[3]
    run = Run(engine)
    run.join(*[make_sequence(n, prompt, TOKENS, temperature=1.0, seed=n) for n in range(5)])
    run.step()
    assert engine._prefill is not None
    assert len(engine._prefill.rows) == 5
    run.leave(0)
    run.leave(3)
    run.finish()
    for number in (1, 2, 4):
        alone = Run(engine)
        alone.join(make_sequence(number, prompt, TOKENS, temperature=1.0, seed=number))
        alone.finish()
        assert run.tokens(number) == alone.tokens(number)


@pytest.mark.parametrize("after", range(5))
def test_leaving_at_any_step(engine: MlxEngine, alone: list[list[int]], after: int) -> None:
    run = Run(engine)
    for number, prompt in enumerate(prompts()):
        run.join(make_sequence(number, prompt, TOKENS, **GREEDY))
    for _ in range(after):
        run.step()
    for number in (0, 3, 7):
        run.leave(number)
    run.finish()
    for number in (1, 2, 4, 5, 6):
        assert run.tokens(number) == alone[number]
    assert engine.ready_at(5.0) == math.inf


# --- prefix reuse ---


def test_a_conversation_goes_on_from_its_caches(folder: Path) -> None:
    engine, fresh = open_engine(folder), open_engine(folder, prefix_cache_mb=0)
    prompt, known = prompts()[6], 0
    for turn in range(3):
        answers = []
        for one in (engine, fresh):
            run = Run(one)
            sequence = make_sequence(turn, prompt, TOKENS, **GREEDY)
            run.join(sequence)
            run.finish()
            answers.append(run.tokens(turn))
            assert sequence.cached_tokens == (known if one is engine else 0)
        assert answers[0] == answers[1]
        known = len(prompt) + TOKENS - 1  # the last token is not in the caches
        prompt = [*prompt, *answers[0], 7, 8, 9]
    assert engine.metrics()["prefix_cache_reused_tokens"] > 0
    assert fresh.metrics()["prefix_cache_bytes"] == 0


def test_prompts_that_begin_alike_share_their_beginning(folder: Path) -> None:
    engine = open_engine(folder)
    common = [0, *range(10, 10 + MIN_REUSED)]
    lengths = []
    for number, end in enumerate(([50, 51], [52], [53, 54, 55])):
        run = Run(engine)
        sequence = make_sequence(number, common + end, 4, **GREEDY)
        run.join(sequence)
        run.finish()
        lengths.append(sequence.cached_tokens)
    assert lengths == [0, len(common), len(common)]


def test_caches_of_ended_answers_are_bounded(folder: Path) -> None:
    engine = open_engine(folder, prefix_cache_mb=1)
    random = np.random.default_rng(5)
    for number in range(12):
        run = Run(engine)
        run.join(make_sequence(number, random.integers(3, 300, 400).tolist(), 2, **GREEDY))
        run.finish()
        assert engine.metrics()["prefix_cache_bytes"] <= 1 << 20
    assert engine.metrics()["prefix_cache_bytes"] > 0


# --- memory ---


def test_what_does_not_fit_waits(folder: Path, alone: list[list[int]]) -> None:
    """768 bytes a token, caches in steps of 256 tokens, twice: five rows in 2 MiB."""
    engine = open_engine(folder, kv_cache_mb=2)
    run = Run(engine)
    for number, prompt in enumerate(prompts()):
        run.join(make_sequence(number, prompt, TOKENS, **GREEDY))
    most = 0
    while engine.ready_at(0.0) == 0.0:
        run.step()
        most = max(most, len(engine._batch.rows))
    assert [run.tokens(number) for number in range(len(alone))] == alone
    assert most == 5
    assert engine.metrics()["kv_cache_evictions"] == 0


@pytest.mark.parametrize("params", [GREEDY, {"temperature": 1.0, "seed": 4}])
def test_a_batch_that_outgrows_its_room_goes_on_in_turns(
    folder: Path, params: dict[str, float]
) -> None:
    random = np.random.default_rng(8)
    long = [random.integers(3, 300, 250 - number).tolist() for number in range(4)]
    answers = []
    for options in ({"kv_cache_mb": 2, "prefix_cache_mb": 0}, {}):
        engine = open_engine(folder, **options)
        run = Run(engine)
        for number, prompt in enumerate(long):
            run.join(make_sequence(number, prompt, 24, **params))
        run.finish()
        answers.append([run.tokens(number) for number in range(4)])
        assert (engine.metrics()["kv_cache_evictions"] > 0) == bool(options)
    assert answers[0] == answers[1]


def test_a_request_without_room_fails_alone(folder: Path) -> None:
    """More than 512 tokens of one row are above 1 MiB: at once, or when it has grown to them."""
    engine = open_engine(folder, kv_cache_mb=1)
    run = Run(engine)
    run.join(make_sequence(1, [5] * 520, 4, **GREEDY), make_sequence(2, [0, 5, 6], 4, **GREEDY))
    run.join(make_sequence(3, [6] * 500, 40, **GREEDY))
    run.finish()
    for number in (1, 3):
        assert "do not fit" in str(run.outputs[number][-1].error)
    assert sum(output.error is None for output in run.outputs[3]) == 512 - 500
    assert len(run.tokens(2)) == 4
    assert engine.ready_at(0.0) == math.inf


# --- failure in a step ---


class Failing:
    """A model that fails while `fails` says so of a pass's input, as mlx does without memory."""

    def __init__(self, model: Any, fails: Callable[[mx.array], bool]) -> None:
        self.model, self.fails, self.layers = model, fails, model.layers

    def __call__(self, inputs: mx.array, cache: Any) -> mx.array:
        if self.fails(inputs):
            raise RuntimeError("[malloc] Unable to allocate 68719476736 bytes.")
        return self.model(inputs, cache=cache)


def break_model(engine: MlxEngine, fails: Callable[[mx.array], bool]) -> None:
    engine._model = engine._batch._model = Failing(engine._model, fails)


def test_a_batch_that_is_too_large_is_tried_smaller(folder: Path, alone: list[list[int]]) -> None:
    engine = open_engine(folder)
    break_model(engine, lambda inputs: inputs.shape[0] > 3)
    run = Run(engine)
    for number, prompt in enumerate(prompts()):
        run.join(make_sequence(number, prompt, TOKENS, **GREEDY))
    run.finish()
    assert [run.tokens(number) for number in range(len(alone))] == alone


def test_only_the_request_that_fails_alone_is_given_up(
    folder: Path, alone: list[list[int]]
) -> None:
    engine = open_engine(folder)
    break_model(engine, lambda inputs: inputs.shape[1] > 90)
    run = Run(engine)
    for number, prompt in enumerate(prompts()):
        run.join(make_sequence(number, prompt, TOKENS, **GREEDY))
        run.step()
    run.finish()
    for number, tokens in enumerate(alone):
        if len(prompts()[number]) > 90:
            assert "Unable to allocate" in str(run.outputs[number][-1].error)
        else:
            assert run.tokens(number) == tokens
    assert engine.ready_at(0.0) == math.inf


@pytest.mark.parametrize("params", [GREEDY, {"temperature": 1.0}])
def test_logits_that_are_not_numbers_fail_only_their_sequence(
    folder: Path, tmp_path: Path, params: dict[str, float]
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tensors = random_tensors(read_json(folder / "config.json"), 0, False)
    tensors["model.embed_tokens.weight"][77] = np.nan
    write_weights(tmp_path / "model.safetensors", tensors, "float32")
    engine = open_engine(tmp_path)
    run = Run(engine)
    other = make_sequence(2, [0, 5], 6, logit_bias={77: -100.0}, **params)
    run.join(make_sequence(1, [0, 77, 5], 6, **params), other)
    run.finish()
    assert "not finite" in str(run.outputs[1][0].error)
    assert len(run.tokens(2)) == 6
    assert all(output.error is None for output in run.outputs[2])


# --- loading ---


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_checkpoints_load_as_they_are(tmp_path: Path, bits: int) -> None:
    from mlx_lm.utils import quantize_model, save_config, save_model

    model = make_kind(tmp_path, "llama")
    config = read_json(tmp_path / "config.json")
    model, config = quantize_model(model, config, 32, bits)
    (tmp_path / "model.safetensors").unlink()
    save_model(tmp_path, model)
    save_config(config, tmp_path / "config.json")
    run = Run(open_engine(tmp_path))
    for number, prompt in enumerate(prompts()):
        run.join(make_sequence(number, prompt, TOKENS, **GREEDY))
    run.finish()
    expected = [greedy_of_mlx_lm(model, prompt) for prompt in prompts()]
    assert [run.tokens(number) for number in range(len(expected))] == expected


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_number_format(folder: Path, dtype: str) -> None:
    config = make_config("mlx", folder)
    config.optimization = Optimization(dtype=dtype)  # type: ignore[arg-type]
    engine = create(config)
    engine.load(lambda done: None)
    kinds = {str(array.dtype) for _, array in tree_flatten(engine._model.parameters())}
    assert kinds == {f"mlx.core.{dtype}"}
    run = Run(engine)
    run.join(make_sequence(1, prompts()[0], 6, logprobs=2, **GREEDY))
    run.finish()
    assert len(run.tokens(1)) == 6


def test_an_adapter_for_the_whole_model(folder: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lora = {"rank": 2, "scale": 8.0, "dropout": 0.0, "keys": ["self_attn.q_proj"]}
    write_json(tmp_path / "adapter_config.json", {"num_layers": 3, "lora_parameters": lora})
    tensors = {}
    for layer in range(3):
        prefix = f"model.layers.{layer}.self_attn.q_proj.lora"
        tensors[f"{prefix}_a"] = mx.array(random.standard_normal((48, 2)), mx.float32)
        tensors[f"{prefix}_b"] = mx.array(random.standard_normal((2, 96)), mx.float32)
    mx.save_safetensors(str(tmp_path / "adapters.safetensors"), tensors)
    answers = []
    for options in ({}, {"adapter_path": str(tmp_path)}):
        run = Run(open_engine(folder, **options))
        run.join(make_sequence(1, prompts()[3], TOKENS, **GREEDY))
        run.finish()
        answers.append(run.tokens(1))
    assert answers[0] != answers[1]


def test_context_and_progress(folder: Path) -> None:
    seen: list[float] = []
    engine = create(make_config("mlx", folder, {"max_model_len": 64}))
    engine.load(seen.append)
    assert engine.spec.context_length == 64
    assert open_engine(folder).spec.context_length == 512
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_importing_it_keeps_the_file_limit() -> None:
    """mlx-lm sets one of its own, for good, in whatever process imports it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert (soft, hard) != (2048, 4096)


def break_file(name: str, content: bytes | None) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)

    return damage


def change(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        config = read_json(folder / "config.json")
        write_json(folder / "config.json", {**config, **changes})

    return damage


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:20_000])


def pretend_huge(folder: Path) -> None:
    with (folder / "model-2.safetensors").open("wb") as file:
        file.truncate(1 << 42)  # sparse: 4 TiB that take no room


@pytest.mark.parametrize(
    ("damage", "kind", "words"),
    [
        (break_file("config.json", None), FileNotFoundError, "config.json is missing"),
        (break_file("config.json", b"{"), ValueError, "is not valid JSON"),
        (break_file("config.json", b"{}"), ValueError, "has no model_type"),
        (break_file("tokenizer.json", None), FileNotFoundError, "the model has no tokenizer"),
        (break_file("model.safetensors", None), FileNotFoundError, "no weights"),
        (break_file("model.safetensors", b"hello"), ValueError, "cannot be read"),
        (truncate, ValueError, "cannot be read"),
        (change(model_type="zork"), ValueError, "Model type zork not supported"),
        (change(intermediate_size=64), ValueError, "mlp.gate_proj"),
        (change(num_hidden_layers=4), ValueError, r"Missing 9 parameters: model.layers.3"),
        (change(vocab_size=100), ValueError, "embed_tokens"),
        (change(model_file="own.py"), ValueError, "trust_remote_code"),
        (pretend_huge, MemoryError, "GiB free"),
    ],
)
def test_folders_that_do_not_load(
    folder: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    kind: type[Exception],
    words: str,
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    damage(tmp_path)
    with pytest.raises(kind, match=words):
        open_engine(tmp_path)


@pytest.mark.parametrize("device", ["mps", "cuda:1"])
def test_a_device_that_is_not_here(folder: Path, device: str) -> None:
    if mx.metal.is_available() or mx.cuda.is_available():
        pytest.skip("this machine has a GPU")
    config = make_config("mlx", folder)
    config.deployment = Deployment(device=device)
    with pytest.raises(ValueError, match=f"device {device} needs"):
        create(config).load(lambda done: None)


def test_unknown_keys_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"\[engine\]: .*n_ctx"):
        create(make_config("mlx", folder, {"n_ctx": 64}))
