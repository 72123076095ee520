"""What goes wrong with llama.cpp: files, memory, decodes. A request fails, the process never."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from driver import Run, make_sequence
from gguf_models import Tensors, make_config, make_gguf, make_lora, make_tiny_bert, open_llama

from smmf_core.engines.base import EngineDead
from smmf_core.engines.llama_cpp import api
from smmf_core.engines.llama_cpp.engine import LlamaCppEngine
from smmf_core.engines.llama_cpp.gguf_file import find_gguf, read_gguf
from smmf_core.errors import ApiError
from smmf_core.messages import Sampling, Submit


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gguf(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def engine(path: Path) -> LlamaCppEngine:
    return open_llama(path, slots=4, n_ctx=256)


@pytest.fixture
def broken(tmp_path: Path, path: Path) -> Callable[[Callable[[bytearray], object]], Path]:
    """A copy of the model's file, damaged."""

    def damage(change: Callable[[bytearray], object]) -> Path:
        data = bytearray(path.read_bytes())
        change(data)
        (tmp_path / "broken.gguf").write_bytes(data)
        return tmp_path / "broken.gguf"

    return damage


# --- files ---


def cut(data: bytearray, size: int) -> None:
    del data[size:]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: cut(data, 0), "is not a GGUF file"),
        (lambda data: cut(data, 3), "is not a GGUF file"),
        (lambda data: data.__setitem__(slice(0, 4), b"GGML"), "is not a GGUF file"),
        (lambda data: struct.pack_into("<I", data, 4, 9), "GGUF version 9"),
        (lambda data: struct.pack_into("<Q", data, 8, 1 << 60), "header does not make sense"),
        (lambda data: struct.pack_into("<Q", data, 16, 1 << 60), "header does not make sense"),
        (lambda data: struct.pack_into("<Q", data, 24, 1 << 40), "header does not make sense"),
        (lambda data: struct.pack_into("<I", data, 32 + 20, 77), "header does not make sense"),
        (lambda data: cut(data, 100), "header does not make sense"),
        (lambda data: cut(data, 4000), "header does not make sense"),
        (lambda data: cut(data, len(data) - 4096), "is cut off: tensor .* behind its end"),
    ],
)
def test_damaged_files(
    broken: Callable[[Callable[[bytearray], object]], Path],
    change: Callable[[bytearray], object],
    words: str,
) -> None:
    with pytest.raises(ValueError, match=words):
        open_llama(broken(change))


def test_every_cut_of_the_header_is_noticed(
    broken: Callable[[Callable[[bytearray], object]], Path], path: Path
) -> None:
    size = path.stat().st_size
    for end in np.linspace(0, size - 64, 60).astype(int).tolist():
        with pytest.raises(ValueError, match=r"broken.gguf"):
            read_gguf(broken(lambda data, end=end: cut(data, end)))


def test_another_architecture(tmp_path: Path) -> None:
    file = tmp_path / "odd.gguf"
    writer = gguf.GGUFWriter(file, "oddity")
    writer.add_tensor("token_embd.weight", np.zeros((8, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match=r"cannot load .*unknown model architecture: 'oddity'"):
        open_llama(file)


def test_a_tensor_is_missing(tmp_path: Path) -> None:
    def drop(tensors: Tensors) -> None:
        del tensors["model.layers.1.mlp.up_proj.weight"]

    with pytest.raises(ValueError, match=r"cannot load .*blk.1.ffn_up.weight"):
        open_llama(make_gguf(tmp_path, drop))


def test_files_that_are_no_model(tmp_path: Path) -> None:
    make_gguf(tmp_path)
    make_lora(tmp_path, tmp_path / "lora.gguf", 0)
    with pytest.raises(ValueError, match=r"lora.gguf is a LoRA adapter, not a model"):
        open_llama(tmp_path / "lora.gguf")


@pytest.mark.parametrize("size", ["num_hidden_layers", "max_position_embeddings"])
def test_sizes_without_which_llama_cpp_aborts(tmp_path: Path, size: str) -> None:
    with pytest.raises(ValueError, match=r"is damaged: its \w+ is 0"):
        open_llama(make_gguf(tmp_path, **{size: 0}))


def test_special_tokens_outside_the_vocabulary(
    broken: Callable[[Callable[[bytearray], object]], Path], path: Path
) -> None:
    key = b"tokenizer.ggml.bos_token_id"
    at = path.read_bytes().index(key) + len(key) + 4
    with pytest.raises(ValueError, match="bos_token_id is 999 of 320 tokens"):
        open_llama(broken(lambda data: struct.pack_into("<I", data, at, 999)))


def test_an_encoder_does_not_generate(tmp_path: Path) -> None:
    file = make_tiny_bert(tmp_path / "bert.gguf", gguf.PoolingType.MEAN)
    with pytest.raises(ValueError, match=r"bert\) generates no text: give it task = 'embed'"):
        open_llama(file)


def test_folders(tmp_path: Path, path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such GGUF file"):
        find_gguf(tmp_path / "absent")
    with pytest.raises(ValueError, match="exactly one GGUF model; it holds none"):
        find_gguf(tmp_path)
    (tmp_path / "one.gguf").write_bytes(path.read_bytes())
    assert open_llama(tmp_path).spec.context_length == 512
    (tmp_path / "two.gguf").write_bytes(b"")
    with pytest.raises(ValueError, match=r"it holds one.gguf, two.gguf"):
        find_gguf(tmp_path)


def test_parts_of_a_split_model(tmp_path: Path, path: Path) -> None:
    first = tmp_path / "m-00001-of-00002.gguf"
    writer = gguf.GGUFWriter(first, "llama")
    writer.add_uint16("split.count", 2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(FileNotFoundError, match=r"00002-of-00002.gguf is missing"):
        open_llama(tmp_path)
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(path.read_bytes()[:-4096])
    with pytest.raises(ValueError, match=r"00002-of-00002.gguf is cut off"):
        open_llama(tmp_path)


def test_not_enough_memory(path: Path) -> None:
    with pytest.raises(MemoryError, match=r"tiny.gguf needs \d+\.\d GiB .* are available"):
        open_llama(path, slots=256, n_ctx=100_000_000)


def test_more_sequences_than_llama_cpp_takes(path: Path) -> None:
    with pytest.raises(ValueError, match=r"max_batch_size is 5000; llama.cpp takes \d+"):
        open_llama(path, slots=5000)


def test_a_gpu_that_the_build_cannot_use(path: Path) -> None:
    config = make_config(path)
    config.deployment.device = "cuda:0"
    with pytest.raises(ValueError, match="built without GPU support"):
        LlamaCppEngine(config, open_llama(path)._options).load(lambda done: None)


# --- adapters ---


def test_adapters_that_cannot_be_had(engine: LlamaCppEngine, tmp_path: Path, path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"red.gguf is missing"):
        engine.set_adapters({"red": str(tmp_path / "red.gguf")})
    with pytest.raises(ValueError, match=r"expect general.type to be 'adapter'"):
        engine.set_adapters({"red": str(path)})
    make_gguf(tmp_path / "wide", hidden_size=96)
    make_lora(tmp_path / "wide", tmp_path / "wide.gguf", 0)
    with pytest.raises(ValueError, match="incorrect shape"):
        engine.set_adapters({"red": str(tmp_path / "wide.gguf")})
    submit = Submit(1, 0, "r", "m", True, 1, None, [[1]], Sampling(), adapter="red")
    with pytest.raises(ApiError, match="There is no adapter 'red'"):
        engine.spec.check(submit)


def test_an_adapters_name_may_stand_for_another_file_later(
    engine: LlamaCppEngine, tmp_path: Path, path: Path
) -> None:
    files = [str(tmp_path / f"{seed}.gguf") for seed in (0, 1)]
    answers = []
    for seed, file in enumerate(files):
        make_lora(path.parent, Path(file), seed)
        engine.set_adapters({"red": file})
        one = make_sequence(seed + 1, ids(3, 20), 8, temperature=0.0)
        one.submit.adapter = "red"
        run = Run(engine)
        run.join(one)
        run.finish()
        answers.append(run.tokens(seed + 1))
    assert answers[0] != answers[1]
    with pytest.raises(FileNotFoundError):
        engine.set_adapters({"red": files[0], "blue": str(tmp_path / "none.gguf")})
    engine.set_adapters({})


# --- decodes ---


def ids(number: int, length: int) -> list[int]:
    return [0, *np.random.default_rng(number).integers(3, 300, length - 1).tolist()]


def tokens_alone(path: Path, one: int, length: int, tokens: int) -> list[int]:
    run = Run(open_llama(path, slots=1, n_ctx=512))
    run.join(make_sequence(one, ids(one, length), tokens, temperature=0.0))
    run.finish()
    return run.tokens(one)


def test_a_full_cache_drops_prefixes_then_lets_the_youngest_wait(path: Path) -> None:
    """Two requests of 250 tokens in a cache of 256: the second runs after the first."""
    engine = open_llama(path, slots=4, n_ctx=256, kv_unified=True)
    run = Run(engine)
    run.join(make_sequence(9, ids(9, 200), 2, temperature=0.0))
    run.finish()
    assert engine.metrics()["kv_tokens"] > 190
    run.join(make_sequence(1, ids(1, 100), 150, temperature=0.0, ignore_eos=True))
    run.step()
    assert engine.metrics()["kv_tokens"] == 100  # the cached prefix had to go
    run.join(make_sequence(2, ids(2, 100), 150, temperature=0.0, ignore_eos=True))
    run.finish()
    assert engine.metrics()["preempted"] >= 1
    for number in (1, 2):
        assert run.tokens(number) == tokens_alone(path, number, 100, 150)
    engine.close()


class Failing:
    """llama_decode that fails when it is told to, as the library does: nothing is computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, when: Callable[[int], int]) -> None:
        self.sizes: list[int] = []
        decode = api.C.llama_decode

        def fail(context: object, batch: object) -> int:
            self.sizes.append(batch.n_tokens)
            return when(batch.n_tokens) or decode(context, batch)

        monkeypatch.setattr(api.C, "llama_decode", fail)


def test_a_batch_that_is_too_large_is_tried_smaller(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_llama(path, n_ctx=512)
    failing = Failing(monkeypatch, lambda size: -2 if size > 40 else 0)
    run = Run(engine)
    run.join(make_sequence(1, ids(1, 7), 6, temperature=0.0))
    run.step()
    run.join(make_sequence(2, ids(2, 100), 6, temperature=0.0))
    run.finish()
    assert failing.sizes[:4] == [7, 101, 51, 26]
    monkeypatch.undo()
    assert run.tokens(1) == tokens_alone(path, 1, 7, 6)
    assert run.tokens(2) == tokens_alone(path, 2, 100, 6)


def test_the_youngest_fails_when_nothing_else_helps(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_llama(path, n_ctx=512)
    Failing(monkeypatch, lambda size: -3 if size > 2 else 0)
    run = Run(engine)
    run.join(make_sequence(1, [0, 5], 6, temperature=0.0))
    run.step()
    run.join(make_sequence(2, [0, 7], 6, temperature=0.0))
    run.step()
    run.join(make_sequence(3, [0, 9], 6, temperature=0.0))
    run.finish()
    (failed,) = run.outputs[3]
    assert "failed to compute this request (code -3)" in str(failed.error)
    monkeypatch.undo()
    for number, token in ((1, 5), (2, 7)):
        alone = Run(open_llama(path, n_ctx=512))
        alone.join(make_sequence(number, [0, token], 6, temperature=0.0))
        alone.finish()
        assert run.tokens(number) == alone.tokens(number)


def test_an_engine_that_computes_nothing_is_dead(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_llama(path, n_ctx=512)
    Failing(monkeypatch, lambda size: -3)
    run = Run(engine)
    run.join(*[make_sequence(number, [0, 5], 6) for number in range(12)])
    with pytest.raises(EngineDead, match="fails again and again") as dead:
        run.finish()
    assert [sequence.id for sequence in dead.value.untouched] == [8, 9, 10, 11]  # have no slot


def test_a_request_that_no_cache_can_hold_fails(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_llama(path, n_ctx=512)
    Failing(monkeypatch, lambda size: 1)
    run = Run(engine)
    run.join(make_sequence(1, ids(1, 9), 6))
    run.finish()
    assert "The KV cache has no room" in str(run.outputs[1][0].error)
    monkeypatch.undo()
    run.join(make_sequence(2, ids(1, 9), 6))
    run.finish()
    assert len(run.tokens(2)) == 6


def test_logits_that_are_not_numbers_fail_only_their_sequence(tmp_path: Path) -> None:
    def poison(tensors: Tensors) -> None:
        tensors["model.embed_tokens.weight"][77] = np.nan

    engine = open_llama(make_gguf(tmp_path, poison), n_ctx=512)
    for params in ({"temperature": 0.0}, {"temperature": 1.0, "seed": 3}):
        run = Run(engine)
        run.join(
            make_sequence(1, [77, 0, 5], 4, **params),
            make_sequence(2, [0, 5], 4, logit_bias={77: -100.0}, **params),
            make_sequence(3, [0, 6], 1, **params),
        )
        run.finish()
        assert "not finite" in str(run.outputs[1][0].error)
        assert len(run.tokens(2)) == 4
        assert run.outputs[3][0].error is None
    again = make_sequence(4, [77, 0, 5], 4)
    run.join(again)
    run.finish()
    assert again.cached_tokens == 0  # nothing of it was kept


@pytest.mark.parametrize(("slots", "unified"), [(1, False), (3, False), (3, True)])
def test_what_is_not_a_number_does_not_stay_in_the_cache(
    tmp_path: Path, slots: int, unified: bool
) -> None:
    def poison(tensors: Tensors) -> None:
        tensors["model.embed_tokens.weight"][77] = np.nan

    file = make_gguf(tmp_path, poison)
    engine = open_llama(file, slots=slots, n_ctx=512, kv_unified=unified)
    run = Run(engine)
    for number in range(slots):  # in every slot
        run.join(make_sequence(number, [77, 0, number + 3], 4))
    run.finish()
    for number in range(2 * slots):
        run.join(make_sequence(number, [0, number + 5], 4, logit_bias={77: -100.0}))
    run.finish()
    assert all(len(run.tokens(number)) == 4 for number in range(2 * slots))
    assert all(run.outputs[number][0].error is None for number in range(2 * slots))


def test_tokens_outside_the_vocabulary_fail_their_sequence(engine: LlamaCppEngine) -> None:
    run = Run(engine)
    run.join(make_sequence(1, [0, 5], 4, [320]), make_sequence(2, [0, 5], 4))
    run.finish()
    assert "outside the model's vocabulary" in str(run.outputs[1][0].error)
    assert len(run.tokens(2)) == 4
    assert engine.ready_at(0.0) == math.inf


def test_bans_that_leave_no_token_fail_their_sequence(engine: LlamaCppEngine) -> None:
    everything = dict.fromkeys(range(320), -100.0)
    run = Run(engine)
    run.join(make_sequence(1, [0, 5], 4, logit_bias=everything), make_sequence(2, [0, 5], 4))
    run.finish()
    assert "leave no token" in str(run.outputs[1][0].error)
    assert len(run.tokens(2)) == 4
