"""What the support matrix asks of a backend: a check per parameter, which sees that it took effect.

A check returns when the parameter does what it should, and raises Refused for an error of the
server, or AssertionError where the parameter changed nothing that it should have.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

from server import Server

from smmf_core.engines.echo.engine import _PIECES

STORY = "Tell me a story about a fox named Momo."
SHORT = "Repeat: zorp-4821"
HOT = {"temperature": 2, "seed": 5}

Object = dict[str, Any]


class Refused(Exception):
    """The server's error."""

    def __init__(self, status: int, error: Object) -> None:
        super().__init__(f"{status} {error}")
        self.status = status
        self.param = error["param"] or ""


class Model:
    """One served model, asked over HTTP; what checks have in common is asked once."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name

    def post(self, path: str, **body: Any) -> Object:
        status, _, answer = self.server.request("POST", path, {"model": self.name, **body})
        found: Object = json.loads(answer)
        if status != 200:
            raise Refused(status, found["error"])
        return found

    def chat(self, said: Any = STORY, **fields: Any) -> Object:
        messages = said if isinstance(said, list) else [{"role": "user", "content": said}]
        body = {"messages": messages, "temperature": 0, "max_tokens": 24, **fields}
        return self.post("/v1/chat/completions", **body)

    def choice(self, said: Any = STORY, **fields: Any) -> Object:
        return self.chat(said, **fields)["choices"][0]

    def text(self, said: Any = STORY, **fields: Any) -> str:
        return self.choice(said, **fields)["message"]["content"] or ""

    def complete(self, prompt: Any = "The", **fields: Any) -> Object:
        body = {"prompt": prompt, "temperature": 0, "max_tokens": 6, **fields}
        return self.post("/v1/completions", **body)

    def tokens(self, text: str, **fields: Any) -> list[int]:
        return self.post("/tokenize", prompt=text, add_special_tokens=False, **fields)["tokens"]

    def stream(self, path: str = "/v1/chat/completions", **fields: Any) -> list[Object]:
        body = {
            "model": self.name, "messages": [{"role": "user", "content": STORY}], "stream": True,
            "temperature": 0, "max_tokens": 24, **fields,
        }  # fmt: skip
        status, _, answer = self.server.request("POST", path, body)
        if status != 200:
            raise Refused(status, json.loads(answer)["error"])
        *events, done, end = answer.decode().split("\n\n")
        assert (done, end) == ("data: [DONE]", "")
        return [json.loads(event.removeprefix("data: ")) for event in events]

    @cached_property
    def greedy(self) -> str:
        return self.text()

    @cached_property
    def short(self) -> Object:
        """An answer that ends by itself."""
        found = self.chat(SHORT, max_tokens=60)
        assert found["choices"][0]["finish_reason"] == "stop"
        return found

    @property
    def short_tokens(self) -> int:
        return int(self.short["usage"]["completion_tokens"])

    def hot(self, **fields: Any) -> str:
        """Where temperature 2 would say something else than the best tokens."""
        assert self.text(**HOT) != self.greedy
        return self.text(**HOT, **fields)

    def id_of(self, piece: str) -> int:
        if self.name == "echo":
            return _PIECES.index(piece.encode())
        (token,) = self.tokens(piece)
        return token


class Row(NamedTuple):
    name: str
    check: Callable[[Model], None]
    about: str
    param: str = ""  # what a refusal names, where it is not the row's name


def cut(text: str, piece: str) -> str:
    return text[: text.index(piece)]


# --- sampling ---


def temperature(m: Model) -> None:
    assert m.text(seed=1) == m.text(seed=2) == m.greedy
    assert len({m.text(temperature=1.5, seed=seed) for seed in range(3)}) > 1


def seed(m: Model) -> None:
    one = m.text(temperature=1, seed=7)
    assert m.text(temperature=1, seed=7) == one
    assert {m.text(temperature=1, seed=seed) for seed in (0, -1, 2**62)} != {one}


def top_p(m: Model) -> None:
    assert m.hot(top_p=0) == m.greedy


def top_k(m: Model) -> None:
    assert m.hot(top_k=1) == m.greedy
    assert m.hot(top_k=-1) == m.hot(top_k=0)


def min_p(m: Model) -> None:
    assert m.hot(min_p=1) == m.greedy


def penalty(name: str, value: float) -> Callable[[Model], None]:
    def check(m: Model) -> None:
        assert m.text(max_tokens=40, **{name: value}) != m.text(max_tokens=40)

    return check


def logit_bias(m: Model) -> None:
    first = m.choice(logprobs=True, max_tokens=1)["logprobs"]["content"][0]["token"]
    token = m.id_of(first)
    assert m.text(max_tokens=1, logit_bias={str(token): -100}) != first
    said = m.text(max_tokens=2, logit_bias={str(m.id_of(" a")): 100})
    assert said == " a a"


def logprobs(m: Model) -> None:
    found = m.choice(logprobs=True)
    listed = found["logprobs"]["content"]
    assert "".join(entry["token"] for entry in listed) == found["message"]["content"]
    raw = b"".join(bytes(entry["bytes"]) for entry in listed)
    assert raw.decode() == found["message"]["content"]
    assert all(-9999 <= entry["logprob"] <= 0 and entry["top_logprobs"] == [] for entry in listed)
    assert found["logprobs"]["refusal"] is None


def top_logprobs(m: Model) -> None:
    for entry in m.choice(logprobs=True, top_logprobs=3)["logprobs"]["content"]:
        values = [top["logprob"] for top in entry["top_logprobs"]]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert entry["top_logprobs"][0]["bytes"] == entry["bytes"]  # greedy: the best one


# --- lengths and ends ---


def max_tokens(m: Model) -> None:
    found = m.chat(max_tokens=5)
    assert found["usage"]["completion_tokens"] == 5
    assert found["choices"][0]["finish_reason"] == "length"


def max_completion_tokens(m: Model) -> None:
    assert m.chat(max_completion_tokens=4, max_tokens=9)["usage"]["completion_tokens"] == 4


def min_tokens(m: Model) -> None:
    wanted = m.short_tokens + 8
    found = m.chat(SHORT, max_tokens=wanted, min_tokens=wanted)
    assert found["usage"]["completion_tokens"] == wanted


def ignore_eos(m: Model) -> None:
    found = m.chat(SHORT, max_tokens=m.short_tokens + 8, ignore_eos=True)
    assert found["usage"]["completion_tokens"] == m.short_tokens + 8
    assert found["choices"][0]["finish_reason"] == "length"


def stop(m: Model) -> None:
    piece = m.greedy[7:12]  # across tokens
    for given in (piece, ["\u4f60", "@@", "##", piece]):
        found = m.choice(stop=given)
        assert found["message"]["content"] == cut(m.greedy, piece)
        assert found["finish_reason"] == "stop"


def include_stop(m: Model) -> None:
    piece = m.greedy[7:12]
    assert m.text(stop=piece, include_stop_str_in_output=True) == cut(m.greedy, piece) + piece


def stop_token_ids(m: Model) -> None:
    third = m.choice(logprobs=True, max_tokens=3)["logprobs"]["content"][2]["token"]
    found = m.choice(stop_token_ids=[m.id_of(third)])
    assert found["message"]["content"] == cut(m.greedy, third)
    assert found["finish_reason"] == "stop"


def n(m: Model) -> None:
    one, found = m.chat(max_tokens=5), m.chat(n=3, max_tokens=5)
    assert [choice["index"] for choice in found["choices"]] == [0, 1, 2]
    assert found["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]
    assert found["usage"]["completion_tokens"] == 15


def n_with_seed(m: Model) -> None:
    fields: Object = {"n": 3, "temperature": 1, "seed": 3}
    texts = [choice["message"]["content"] for choice in m.chat(**fields)["choices"]]
    assert len(set(texts)) == 3
    assert [choice["message"]["content"] for choice in m.chat(**fields)["choices"]] == texts


# --- streams ---


def stream(m: Model) -> None:
    events = m.stream()
    deltas = [event["choices"][0] for event in events]
    assert "".join(c["delta"].get("content") or "" for c in deltas) == m.greedy
    assert deltas[0]["delta"]["role"] == "assistant"
    assert (deltas[-1]["delta"], deltas[-1]["finish_reason"]) == ({}, m.choice()["finish_reason"])
    assert all("usage" not in event for event in events)


def include_usage(m: Model) -> None:
    *others, last = m.stream(stream_options={"include_usage": True})
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 24)
    assert all(event["usage"] is None for event in others)


def continuous_usage(m: Model) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    counts = [e["usage"]["completion_tokens"] for e in m.stream(stream_options=options)[1:]]
    assert counts == sorted(counts)
    assert counts[-1] == 24
    assert len(set(counts)) > 1


# --- messages and templates ---


def content_parts(m: Model) -> None:
    parts = [{"type": "text", "text": STORY[:9]}, {"type": "text", "text": STORY[9:]}]
    assert m.text([{"role": "user", "content": parts}]) == m.greedy


def image_parts(m: Model) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    m.chat([{"role": "user", "content": [{"type": "text", "text": "x"}, image]}])


def roles(m: Model) -> None:
    """A developer is a system; a call and its result are part of the prompt."""
    user = {"role": "user", "content": STORY}
    systems = [
        m.chat([{"role": role, "content": "Be brief."}, user]) for role in ("system", "developer")
    ]
    counts = {found["usage"]["prompt_tokens"] for found in systems}
    if m.name != "echo":
        assert len(counts) == 1
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = [user, {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "It is sunny."}]  # fmt: skip
    longer = m.chat(said)["usage"]["prompt_tokens"]
    assert longer > m.chat([user])["usage"]["prompt_tokens"]


def chat_template_kwargs(m: Model) -> None:
    """The template's own variables may be set: here the one that begins a prompt."""
    fewer = m.chat(chat_template_kwargs={"bos_token": ""})["usage"]["prompt_tokens"]
    assert fewer < m.chat()["usage"]["prompt_tokens"]


def add_generation_prompt(m: Model) -> None:
    fewer = m.chat(add_generation_prompt=False)["usage"]["prompt_tokens"]
    assert fewer == m.chat()["usage"]["prompt_tokens"] - 1


def continue_final_message(m: Model) -> None:
    begun = m.greedy[: m.greedy.index(" ", 12)]
    said = [{"role": "user", "content": STORY}, {"role": "assistant", "content": begun}]
    going_on = m.chat(said, continue_final_message=True, max_tokens=4)
    assert going_on["usage"]["prompt_tokens"] < m.chat(said)["usage"]["prompt_tokens"]
    text = going_on["choices"][0]["message"]["content"]
    assert m.greedy.removeprefix(begun).startswith(text)


# --- what is refused, or taken and left ---


def refused(**fields: Any) -> Callable[[Model], None]:
    def check(m: Model) -> None:
        m.chat(**fields)

    return check


def accepted(**fields: Any) -> Callable[[Model], None]:
    def check(m: Model) -> None:
        assert m.text(**fields) == m.greedy

    return check


CHAT = [
    Row("messages", roles, "every role; `developer` as `system`; calls and their results"),
    Row("messages: parts of text", content_parts, "joined"),
    Row("messages: images, audio, files", image_parts,
        "the part is named; images: but with models that see (vllm)", "messages[0].content[1]"),
    Row("temperature", temperature, "0 is greedy"),
    Row("top_p", top_p, "0 is the best token"),
    Row("top_k", top_k, "0 or -1: all"),
    Row("min_p", min_p, ""),
    Row("seed", seed, "the same request, the same answer"),
    Row("presence_penalty", penalty("presence_penalty", 2), ""),
    Row("frequency_penalty", penalty("frequency_penalty", 2), ""),
    Row("repetition_penalty", penalty("repetition_penalty", 2), ""),
    Row("logit_bias", logit_bias, "-100 bans, 100 forces"),
    Row("logprobs", logprobs, "with the tokens' bytes"),
    Row("top_logprobs", top_logprobs, "up to 20"),
    Row("n", n, "up to 128"),
    Row("n with seed", n_with_seed, "choices differ, and are the same again"),
    Row("max_tokens", max_tokens, ""),
    Row("max_completion_tokens", max_completion_tokens, "before `max_tokens`"),
    Row("min_tokens", min_tokens, ""),
    Row("ignore_eos", ignore_eos, ""),
    Row("stop", stop, "one, or up to 4; across tokens"),
    Row("include_stop_str_in_output", include_stop, ""),
    Row("stop_token_ids", stop_token_ids, ""),
    Row("stream", stream, "the same text and finish reason"),
    Row("stream_options.include_usage", include_usage, ""),
    Row("stream_options.continuous_usage_stats", continuous_usage, ""),
    Row("chat_template_kwargs, reasoning_effort", chat_template_kwargs,
        "variables of the template"),
    Row("add_generation_prompt", add_generation_prompt, ""),
    Row("continue_final_message", continue_final_message, ""),
    Row("functions, function_call", refused(functions=[{"name": "f"}]), "use `tools`", "functions"),
    Row("modalities: audio", refused(modalities=["text", "audio"]), "", "modalities[1]"),
    Row(
        "user, metadata, store, service_tier, verbosity, prediction, safety_identifier, "
        "prompt_cache_key, web_search_options, moderation",
        accepted(user="u", metadata={"a": "b"}, store=True, service_tier="auto", verbosity="low",
                 prediction={"type": "content", "content": "x"}, safety_identifier="s",
                 prompt_cache_key="k", web_search_options={}, moderation={}),
        "taken, and without effect on the answer",
    ),
]  # fmt: skip
