"""Pictures in each dialect's chats: bytes beside the messages, limits, errors naming the part."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from smmf_core.api import anthropic, ollama, openai, responses
from smmf_core.api.openai import images
from smmf_core.api.openai.images import MAX_IMAGE_BYTES, MAX_IMAGES, joined
from smmf_core.errors import ApiError
from smmf_core.messages import Image, Submit

DATA = b"\x89PNG\r\n\x1a\nnot looked into"
BASE64 = base64.b64encode(DATA).decode()
URL = f"data:image/png;base64,{BASE64}"
SOURCE = {"type": "base64", "media_type": "image/png", "data": BASE64}
HERE: dict[str, Any] = {"type": "image"}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def chat(*parts: Any, role: str = "user", **more: Any) -> Submit:
    message = {"role": role, "content": list(parts), **more}
    body = {"model": "m", "messages": [message]}
    return finished(openai.parse(openai.CHAT, json.dumps(body).encode()))


def message(*blocks: Any) -> Submit:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": list(blocks)}]}
    return finished(anthropic.parse(json.dumps(body).encode()))


def response(*items: Any) -> Submit:
    return finished(responses.parse(json.dumps({"model": "m", "input": list(items)}).encode()))


def finished(request: Any) -> Submit:
    return openai.finish(request, {}).submit


def shown(url: Any, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def test_an_openai_chat() -> None:
    found = chat(text("a"), shown(URL, detail="high"), text("b"), text("c"), shown(URL))
    assert found.messages is not None
    assert found.messages[0]["content"] == [text("a"), HERE, text("bc"), HERE]
    assert found.images == [
        Image(DATA, "messages[0].content[1]"),
        Image(DATA, "messages[0].content[4]"),
    ]
    assert chat({"type": "image_url", "image_url": URL}).images[0].data == DATA


def test_a_tools_answer_may_be_an_image() -> None:
    found = chat(shown(URL), role="tool", tool_call_id="a")
    assert found.messages is not None
    assert found.messages[0]["content"] == [HERE]


def test_a_chat_of_texts_stays_texts() -> None:
    found = chat(text("a"), text("b"))
    assert found.messages is not None
    assert found.messages[0]["content"] == "ab"
    assert found.images == []


def test_an_anthropic_message() -> None:
    result = {
        "type": "tool_result", "tool_use_id": "t", "is_error": True,
        "content": [text("no"), {"type": "image", "source": SOURCE}],
    }  # fmt: skip
    picture = {"type": "image", "source": SOURCE}
    found = message(result, text("a"), text("b"), picture, text("c"))
    assert found.messages == [
        {"role": "tool", "tool_call_id": "t", "content": [text("Error: no"), HERE]},
        {"role": "user", "content": [text("a\nb"), HERE, text("c")]},
    ]
    places = ["messages[0].content[0].content[1]", "messages[0].content[3]"]
    assert [image.param for image in found.images] == places
    as_url = {"type": "image", "source": {"type": "url", "url": URL}}
    assert message(as_url).images[0].data == DATA


def test_responses_items() -> None:
    picture = {"type": "input_image", "image_url": URL, "detail": "auto"}
    words = {"type": "input_text", "text": "a"}
    output = {"type": "function_call_output", "call_id": "c", "output": [picture]}
    asked = {"role": "user", "content": [words, picture]}
    found = response(asked, {"role": "user", "content": "b"}, output)
    assert found.messages == [
        {"role": "user", "content": [text("a"), HERE, text("b")]},
        {"role": "tool", "tool_call_id": "c", "content": [HERE]},
    ]
    places = ["input[0].content[1]", "input[2].output[0]"]
    assert [image.param for image in found.images] == places


@pytest.mark.parametrize("given", [BASE64, URL])
def test_ollamas_images(given: str) -> None:
    said = {"role": "user", "content": "a", "images": [given, given]}
    found = finished(ollama.parse_chat(json.dumps({"model": "m", "messages": [said]}).encode()))
    assert found.messages == [{"role": "user", "content": [HERE, HERE, text("a")]}]
    assert [i.param for i in found.images] == ["messages[0].images[0]", "messages[0].images[1]"]
    body = {"model": "m", "prompt": "a", "images": [given]}
    found = finished(ollama.parse_generate(json.dumps(body).encode()))
    assert found.messages == [{"role": "user", "content": [HERE, text("a")]}]
    assert found.images == [Image(DATA, "images[0]")]


def test_tokens_of_a_chat() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": [shown(URL)]}]}
    wanted = openai.parse_tokenize(json.dumps(body).encode(), "1")
    assert wanted.submit.messages == [{"role": "user", "content": [HERE]}]  # type: ignore[union-attr]
    assert wanted.submit.images[0].data == DATA  # type: ignore[union-attr]
    body["max_tokens"] = 9  # type: ignore[assignment]
    body["messages"] = [{"role": "user", "content": [{"type": "image", "source": SOURCE}]}]
    wanted = anthropic.parse_count(json.dumps(body).encode(), "1")
    assert wanted.submit.images[0].data == DATA  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("http://localhost/a.png", "unsupported_value", "send the image itself as a 'data:' URL"),
        ("https://localhost/" + "a" * 9000, "unsupported_value", "not fetched"),
        ("file:///etc/passwd", "unsupported_value", "not fetched"),
        ("", "unsupported_value", "not fetched"),
        ("data:", "invalid_value", "must begin like"),
        (f"data:image/png,{BASE64}", "invalid_value", "must begin like"),
        ("data:" + "a" * 9000, "invalid_value", "must begin like"),
        (f"data:image/tiff;base64,{BASE64}", "unsupported_value", "'image/tiff'"),
        (f"data:text/html;base64,{BASE64}", "unsupported_value", "'text/html'"),
        ("data:image/png;base64,", "invalid_value", "empty"),
        (URL + "=", "invalid_value", "base64"),
        (URL + "\n", "invalid_value", "base64"),
        (URL + "\u00e9", "invalid_value", "base64"),
        (URL[:-1], "invalid_value", "base64"),
        (7, "invalid_value", "must be a string"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_wrong_urls(url: Any, code: str, said: str) -> None:
    with pytest.raises(ApiError) as caught:
        chat(text("a"), shown(url))
    assert (caught.value.code, caught.value.param) == (code, "messages[0].content[1]")
    assert said in caught.value.message
    assert len(caught.value.message) < 400


def test_data_urls_are_read_as_browsers_do() -> None:
    for url in (
        f"DATA:image/PNG;BASE64,{BASE64}",
        f"data:image/jpeg;charset=utf-8;base64,{BASE64}",
        f"data:image/webp;base64,{BASE64}",
        f"data:image/gif;base64,{BASE64}",
    ):
        assert chat(shown(url)).images[0].data == DATA


@pytest.mark.parametrize(
    ("part", "role", "param"),
    [
        ({"type": "image_url"}, "user", ".image_url.url"),
        (shown(None), "user", ".image_url.url"),
        (shown(URL, detail="some"), "user", ".image_url.detail"),
        (shown(URL), "system", ""),
        (shown(URL), "assistant", ""),
        ({"type": "image", "image": {"data": BASE64}}, "user", ""),
        ({"type": "input_audio"}, "user", ""),
    ],
)
def test_wrong_parts(part: Any, role: str, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        chat(part, role=role)
    assert caught.value.param == f"messages[0].content[0]{param}"


@pytest.mark.parametrize(
    "source",
    [
        None,
        {},
        {"type": "file", "file_id": "f"},
        {"type": "base64", "data": BASE64},
        {**SOURCE, "media_type": "image/bmp"},
        {**SOURCE, "data": "?"},
        {**SOURCE, "data": 3},
        {"type": "url", "url": "https://localhost/a.png"},
        {"type": "url"},
    ],
)
def test_wrong_sources(source: Any) -> None:
    with pytest.raises(ApiError) as caught:
        message(text("a"), {"type": "image", "source": source})
    assert caught.value.param == "messages[0].content[1]"
    assert caught.value.status == 400


def test_too_many_and_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(chat(*[shown(URL)] * MAX_IMAGES).images) == MAX_IMAGES
    with pytest.raises(ApiError, match="may have 100 images, this one has 101") as caught:
        chat(*[shown(URL)] * (MAX_IMAGES + 1))
    assert caught.value.param == f"messages[0].content[{MAX_IMAGES}]"
    large = "data:image/png;base64," + "A" * (MAX_IMAGE_BYTES // 3 * 4 + 8)
    with pytest.raises(ApiError, match="20 MiB at most") as caught:
        chat(shown(large))
    assert caught.value.param == "messages[0].content[0]"
    assert len(caught.value.message) < 200


def test_contents_are_joined_in_their_order() -> None:
    assert joined([]) == ""
    assert joined(["a", "", "b"], "\n") == "a\nb"
    assert joined(["a", HERE, "b", "c", HERE, ""], "\n") == [text("a"), HERE, text("b\nc"), HERE]
    assert joined([HERE]) == [HERE]
    assert joined(["a", [text("b"), HERE], "c"]) == [text("ab"), HERE, text("c")]


def test_a_text_model_takes_none() -> None:
    error = images.no_vision(Image(b"", "messages[0].content[1]"))
    assert (error.code, error.param) == ("unsupported_value", "messages[0].content[1]")
