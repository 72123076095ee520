"""Images in the in-process vLLM engine, against vLLM's own LLM.chat. Run by test_vllm_vision.py
under the interpreter that has vLLM."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from engines import make_config, open_engine
from tiny_vision import IMAGE_TOKENS, make_vision_model, png
from worker_rig import Answer, Worker

from smmf_core import messages as m
from smmf_core.engines.base import StepEngine
from smmf_core.messages import Image, Tokenize, Tokenized
from smmf_core.worker.contract import Tally
from smmf_core.worker.tokens import answer as answer_tokens

TOKENS = 12
LIMITS: dict[str, Any] = {
    "max_model_len": 256,
    "max_num_seqs": 8,
    "kv_cache_memory_bytes": 32 << 20,
    "block_size": 32,
    "limit_mm_per_prompt": {"image": 3},
}
QUESTION = "the quick brown fox jumps over the lazy dog"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vision_model(tmp_path_factory.mktemp("vision") / "model")


@pytest.fixture(scope="module")
def engine(folder: Path, known: object) -> Iterator[StepEngine]:
    """After vLLM's own, which must be gone: two in one process share what the first one ends."""
    engine = open_engine("vllm", folder, **LIMITS)
    yield engine
    engine.close()


@pytest.fixture
def worker(engine: StepEngine) -> Worker:
    return Worker(engine, engine.spec.max_sequences)


def parts(*contents: str | bytes) -> tuple[list[dict[str, Any]], list[Image]]:
    """One user's turn of texts and images."""
    found: list[dict[str, Any]] = []
    images = []
    for number, content in enumerate(contents):
        if isinstance(content, bytes):
            found.append({"type": "image"})
            images.append(Image(content, f"messages[0].content[{number}]"))
        else:
            found.append({"type": "text", "text": content})
    return [{"role": "user", "content": found if images else "".join(contents)}], images


def submit(worker: Worker, *contents: str | bytes, tokens: int = TOKENS, **fields: Any) -> int:
    messages, images = parts(*contents)
    return worker.submit(
        "", tokens, messages=messages, images=images, **{"ignore_eos": True, **fields}
    )


def ask(worker: Worker, *contents: str | bytes, **fields: Any) -> Answer:
    key = submit(worker, *contents, **fields)
    worker.finish()
    return worker.answers[key]


CHATS: tuple[tuple[str | bytes, ...], ...] = (
    (png(1), QUESTION),
    (png(2), QUESTION),
    (QUESTION, png(1), " and ", png(2, 90, 40), " are old trees"),
    (QUESTION,),
)


@pytest.fixture(scope="module")
def known(folder: Path) -> list[tuple[list[int], list[int]]]:
    """Prompt and greedy tokens of each chat, by vLLM's own front end."""
    from smmf_core.engines.vllm.args import set_environment

    set_environment(make_config("vllm", folder))
    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory

    own = {"dtype": "float32", "enforce_eager": True, "enable_chunked_prefill": False}
    llm = LLM(model=str(folder), **LIMITS, **own)
    params = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True, detokenize=False)
    chats = [[{"role": "user", "content": [_part(c) for c in chat]}] for chat in CHATS]
    answers = llm.chat(chats, params, use_tqdm=False)  # type: ignore[arg-type]
    found = [(list(a.prompt_token_ids), list(a.outputs[0].token_ids)) for a in answers]
    llm.llm_engine.engine_core.shutdown()
    cleanup_dist_env_and_memory()
    return found


def _part(content: str | bytes) -> dict[str, Any]:
    if isinstance(content, str):
        return {"type": "text", "text": content}
    url = "data:image/png;base64," + base64.b64encode(content).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def test_it_says_that_it_sees(engine: StepEngine) -> None:
    assert "vision" in engine.spec.capabilities


def test_greedy_text_is_that_of_vllms_own_front_end(
    worker: Worker, known: list[tuple[list[int], list[int]]]
) -> None:
    for chat, (prompt, expected) in zip(CHATS, known, strict=True):
        answer = ask(worker, *chat)
        assert answer.ids == expected
        assert answer.usage is not None
        assert answer.usage[0] == len(prompt)
    assert len({tuple(ids) for _, ids in known}) == len(CHATS)


def test_together_they_are_as_alone(
    worker: Worker, known: list[tuple[list[int], list[int]]]
) -> None:
    keys = [submit(worker, *chat) for chat in (*CHATS, *CHATS)]
    worker.finish()
    assert [worker.answers[key].ids for key in keys] == [ids for _, ids in (*known, *known)]


def test_an_image_takes_its_tokens(worker: Worker) -> None:
    without, one, two = (
        ask(worker, *images, QUESTION) for images in ((), (png(5),), (png(5), png(6)))
    )
    assert without.usage
    assert one.usage
    assert two.usage
    assert one.usage[0] == without.usage[0] + IMAGE_TOKENS
    assert two.usage[0] == one.usage[0] + IMAGE_TOKENS


def test_a_cached_prefix_is_of_the_same_image(worker: Worker) -> None:
    """Prompts of equal tokens, of several blocks: only the images tell them apart."""
    long = QUESTION * 3
    first = ask(worker, png(11), long)
    other = ask(worker, png(12), long)
    again = ask(worker, png(11), long)
    assert first.usage
    assert other.usage
    assert again.usage
    assert first.usage[0] == other.usage[0] > 64
    assert other.usage[2] == 0
    assert again.usage[2] == 64  # whole blocks
    assert again.ids == first.ids != other.ids


def test_choices_share_an_image(worker: Worker) -> None:
    alone = ask(worker, png(3), QUESTION)
    several = ask(worker, png(3), QUESTION, n=3)
    assert [choice.ids for choice in several.choices] == [alone.ids] * 3


def test_an_answer_goes_on_after_a_lost_worker(worker: Worker) -> None:
    whole = ask(worker, png(4), QUESTION).ids
    again = ask(worker, png(4), QUESTION, emitted=[whole[:5]])
    assert again.ids == whole[5:]


@pytest.mark.parametrize(
    ("contents", "param"),
    [
        ((b"no image", "x"), "messages[0].content[0]"),
        (("x", png(1)[:200]), "messages[0].content[1]"),
        (("x", png(1)[:20]), "messages[0].content[1]"),
        ((png(1), b"GIF89a"), "messages[0].content[1]"),
        ((png(1), png(2), png(3), png(4)), "messages[0].content[3]"),  # limit_mm_per_prompt
    ],
)
def test_what_is_no_image_is_refused_before_anything_is_sent(
    worker: Worker, contents: tuple[str | bytes, ...], param: str
) -> None:
    key = submit(worker, *contents)
    worker.step()
    error = worker.answers[key].error
    assert error is not None
    assert (error.code, error.param) == ("invalid_value", param)
    assert len(worker.core) == 0


def test_a_prompt_that_is_too_long_with_its_image(worker: Worker) -> None:
    used = ask(worker, "x").usage
    assert used
    text = "x" * (LIMITS["max_model_len"] - TOKENS - used[0])
    assert ask(worker, text).error is None
    error = ask(worker, png(1), text).error
    assert error is not None
    assert (error.code, error.param) == ("context_length_exceeded", "messages")


@pytest.mark.parametrize(
    "contents",
    [
        ("<image> and <image>",),
        (png(1), "<image>"),
        ("<image>", png(1), "<image>"),
        ("<image>" * 9,),
    ],
)
def test_a_text_that_looks_like_an_image_harms_nobody(
    worker: Worker, contents: tuple[str | bytes, ...]
) -> None:
    """It is that token, without a picture; the engine lives."""
    plain = ask(worker, png(1), QUESTION).ids
    kept = submit(worker, png(1), QUESTION)
    key = submit(worker, *contents)
    worker.finish()
    assert worker.answers[key].is_over
    assert worker.answers[kept].ids == plain


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3000, 1), (1, 3000), (700, 500)])
def test_pictures_of_any_shape(worker: Worker, width: int, height: int) -> None:
    """They are taken, or refused; the engine lives."""
    key = submit(worker, png(1, width, height), QUESTION)
    worker.finish()
    error = worker.answers[key].error
    assert error is None or error.param == "messages[0].content[0]"
    assert len(ask(worker, png(1), QUESTION).ids) == TOKENS


def picture(kind: str, mode: str = "RGB", **saved: Any) -> bytes:
    file = io.BytesIO()
    base = PIL.Image.open(io.BytesIO(png(7))).convert(mode)
    base.save(file, kind, **saved)
    return file.getvalue()


def test_formats_are_pictures(worker: Worker) -> None:
    plain = ask(worker, png(7), QUESTION).ids
    assert ask(worker, picture("WEBP", lossless=True), QUESTION).ids == plain
    assert ask(worker, picture("PNG", "RGBA"), QUESTION).ids == plain
    for data in (picture("JPEG"), picture("GIF", "P"), picture("PNG", "L")):
        assert len(ask(worker, data, QUESTION).ids) == TOKENS


def test_photographs_are_upright(worker: Worker) -> None:
    turned = PIL.Image.open(io.BytesIO(png(7))).transpose(PIL.Image.Transpose.ROTATE_90)
    notes = PIL.Image.Exif()
    notes[0x0112] = 6  # orientation: to be turned by 90 degrees, clockwise
    file = io.BytesIO()
    turned.save(file, "WEBP", lossless=True, exif=notes)
    assert ask(worker, file.getvalue(), QUESTION).ids == ask(worker, png(7), QUESTION).ids
    file = io.BytesIO()
    turned.save(file, "WEBP", lossless=True, exif=b"Exif\0\0not notes")
    assert ask(worker, file.getvalue(), QUESTION).error is None


def test_a_huge_picture_is_refused_by_its_head(worker: Worker) -> None:
    file = io.BytesIO()
    PIL.Image.new("1", (9000, 9000)).save(file, "PNG")
    error = ask(worker, file.getvalue(), QUESTION).error
    assert error is not None
    assert error.param == "messages[0].content[0]"
    assert "pixels" in error.message


def test_tokens_are_counted_as_they_are_used(worker: Worker, engine: StepEngine) -> None:
    messages, images = parts(png(8), QUESTION)
    asked = Tokenize(1, 0, "r", "m", "", messages, False, False, images=images)
    (kind, *_, payload), _ = answer_tokens(asked, engine.spec, Tally(), (0, 1))
    assert kind == m.RESULT
    counted = m.msgspec.msgpack.decode(payload, type=Tokenized).count
    used = ask(worker, png(8), QUESTION).usage
    assert used
    assert counted == used[0]
