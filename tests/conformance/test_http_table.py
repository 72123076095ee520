"""The table of errors and the rules for headers, row by row, on a real server with a key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from server import Server, echo_toml

from smmf_core.errors import KINDS, ApiError
from smmf_core.http.protocol import Limits

KEY = "sk-table"
ORIGIN = "http://app.test"
AUTH = {"authorization": f"Bearer {KEY}"}
USER = {"role": "user", "content": "hi"}
CHAT = {"model": "echo", "messages": [USER]}
INVALID = "invalid_request_error"
EXPOSED = {
    "x-request-id", "retry-after",
    "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
}  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("table")
    (folder / "local-echo.toml").write_text(echo_toml())
    slow = {"step_ms": 20.0, "tokens": 5000}
    one = echo_toml("one", engine=slow, deployment={"max_concurrency": 1})
    (folder / "local-one.toml").write_text(one)
    (folder / "smmf.toml").write_text(
        f'[server]\napi_keys = ["{KEY}"]\ncors_origins = ["{ORIGIN}"]\nmax_body_mb = 1\n'
        "[limits]\nmax_queue = 1\n"
    )
    server = Server(folder).start()
    yield server
    assert server.stop() == 0


@pytest.fixture
def http(served: Server) -> Iterator[httpx.Client]:
    root = served.base_url.removesuffix("/v1")
    with httpx.Client(base_url=root, headers=AUTH, timeout=60) as http:
        yield http


class Row(NamedTuple):
    status: int
    kind: str
    code: str | None
    param: str | None = None
    method: str = "POST"
    path: str = "/v1/chat/completions"
    body: Any = CHAT
    headers: dict[str, str] = {}  # noqa: RUF012 - read only
    answers: dict[str, str] = {}  # noqa: RUF012 - headers of the answer


def chat(**fields: Any) -> dict[str, Any]:
    return {**CHAT, **fields}


def unauthorized(**headers: str) -> Row:
    given = {"authorization": "", **headers}
    www = {"www-authenticate": "Bearer"}
    return Row(401, INVALID, "invalid_api_key", headers=given, answers=www)


NO_GET = {"allow": "POST, OPTIONS"}
NO_POST = {"allow": "GET, HEAD, OPTIONS"}
ROWS = {
    "no JSON": Row(400, INVALID, None, body=b"{"),
    "no object": Row(400, INVALID, None, body=b"[]"),
    "no UTF-8": Row(400, INVALID, None, body=b'{"model":"\xff"}'),
    "NaN": Row(400, INVALID, None, body=b'{"model":"echo","top_p":NaN}'),
    "nothing": Row(400, INVALID, None, body=b""),
    "deep": Row(400, INVALID, None, body=b"[" * 100_000),
    "missing": Row(
        400, INVALID, "missing_required_parameter", "messages", body={"model": "echo"}
    ),
    "type": Row(400, INVALID, "invalid_type", "temperature", body=chat(temperature="hot")),
    "above": Row(400, INVALID, "decimal_above_max_value", "temperature", body=chat(temperature=3)),
    "below": Row(400, INVALID, "integer_below_min_value", "n", body=chat(n=0)),
    "value": Row(400, INVALID, "invalid_value", "tool_choice", body=chat(tool_choice="auto")),
    "part": Row(
        400, INVALID, "unsupported_value", "messages[0].content[0]",
        body=chat(messages=[{"role": "user", "content": [{"type": "video"}]}]),
    ),
    "context": Row(
        400, INVALID, "context_length_exceeded", "messages",
        body=chat(messages=[{"role": "user", "content": "word " * 100_000}]),
    ),
    "no key": unauthorized(),
    "empty bearer": unauthorized(authorization="Bearer "),
    "wrong key": unauthorized(authorization="Bearer no"),
    "wrong x-api-key": unauthorized(**{"x-api-key": "no"}),
    "wrong api-key": unauthorized(**{"api-key": "no"}),
    "model": Row(404, INVALID, "model_not_found", "model", body=chat(model="a/b:c")),
    "model of a path": Row(
        404, INVALID, "model_not_found", "model", "GET", "/v1/models/a%2Fb:c", None
    ),
    **{
        f"path {path}": Row(404, INVALID, "unknown_url", None, method, path)
        for method, path in [
            ("POST", "/v1/foo"), ("POST", "/v1/v1/chat/completions"),
            ("POST", "/v1/chat/completions/"), ("POST", "//v1/chat/completions"),
            ("GET", "/v1/modelss"), ("GET", "/v1/audio/speech"),
            ("POST", "/v1/moderations"), ("GET", "/V1/MODELS"), ("GET", "/v2/models"),
        ]
    },
    **{
        f"method {method} {path}": Row(
            405, INVALID, "method_not_supported", None, method, path, answers=allow
        )
        for method, path, allow in [
            ("GET", "/v1/chat/completions", NO_GET), ("HEAD", "/v1/embeddings", NO_GET),
            ("PUT", "/v1/completions", NO_GET), ("DELETE", "/v1/models/echo", NO_POST),
            ("POST", "/v1/models", NO_POST), ("PATCH", "/health", NO_POST),
        ]
    },
    "body": Row(
        413, INVALID, "request_too_large", body=b" " * ((1 << 20) + 1),
        answers={"connection": "close"},
    ),
    "form": Row(
        415, INVALID, "unsupported_media_type",
        headers={"content-type": "multipart/form-data; boundary=x"},
    ),
    "coding": Row(
        415, INVALID, "unsupported_media_type", headers={"content-encoding": "br"},
        answers={"accept-encoding": "gzip, deflate, zstd", "connection": "close"},
    ),
    "head": Row(
        431, INVALID, "headers_too_large", headers={"x-much": "x" * 40_000},
        answers={"connection": "close"},
    ),
    "target": Row(414, INVALID, "uri_too_long", path="/" + "x" * 40_000),
    "expectation": Row(417, INVALID, "expectation_failed", headers={"expect": "wonders"}),
    "trace": Row(
        501, "server_error", "not_implemented", None, "TRACE", body=None,
        answers={"x-should-retry": "false"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_refusals(served: Server, name: str) -> None:
    row = ROWS[name]
    content = row.body if isinstance(row.body, bytes | None) else json.dumps(row.body).encode()
    headers = {**AUTH, "x-request-id": "mine-1", **row.headers}
    status, answered, body = served.request(row.method, row.path, content, headers)
    assert status == row.status, body
    assert answered["content-type"] == "application/json"
    assert answered["x-request-id"] == "mine-1" or name == "target"  # headers were not read
    for header, value in row.answers.items():
        assert answered[header] == value
    assert ("x-should-retry" in answered) == ("x-should-retry" in row.answers)
    if row.method == "HEAD":
        assert body == b""
        return
    error = json.loads(body)["error"]
    message = error.pop("message")
    assert error == {"type": row.kind, "param": row.param, "code": row.code}
    assert 0 < len(message) < 400
    if name == "context":
        assert "maximum context length is" in message


def test_a_full_queue(served: Server, http: httpx.Client) -> None:
    """One runs, one waits, the next one comes again in a while."""
    body = {"model": "one", "messages": [USER], "stream": True}
    with http.stream("POST", "/v1/chat/completions", json=body) as running:
        answer = running.iter_bytes()  # to be kept: without it the client hangs up
        next(answer)
        with ThreadPoolExecutor(4) as pool:
            asked = [
                pool.submit(
                    served.request, "POST", "/v1/completions",
                    {"model": "one", "prompt": "x", "max_tokens": 1}, AUTH,
                )
                for _ in range(4)
            ]  # fmt: skip
            status, headers, body_bytes = next(as_completed(asked, timeout=60)).result()
            running.close()
    error = json.loads(body_bytes)["error"]
    assert (status, error["type"], error["code"]) == (429, "rate_limit_error", "queue_full")
    assert 1 <= int(headers["retry-after"]) <= 60
    assert "x-should-retry" not in headers  # SDKs try again by themselves


def test_what_sdks_would_retry_and_must_not() -> None:
    """They come again after 408, 409, 429 and all of 500 and above, unless told otherwise."""
    for code, kind in KINDS.items():
        headers = dict(ApiError(code, "", retry_after_s=1000).headers())
        is_retried = kind.status in (408, 409, 429) or kind.status >= 500
        assert (b"x-should-retry" in headers) == (is_retried and not kind.retry), code
        assert headers[b"retry-after"] == b"60"
        assert kind.status not in (422, 499)
        assert not (kind.retry and not is_retried), code


def test_every_answer_says_who_and_how_long(http: httpx.Client) -> None:
    stream = chat(stream=True)
    for method, path, body in [
        ("GET", "/v1/models", None), ("GET", "/health", None),
        ("POST", "/v1/chat/completions", CHAT), ("POST", "/v1/chat/completions", stream),
        ("POST", "/v1/chat/completions", chat(n=0)),
    ]:  # fmt: skip
        response = http.request(method, path, json=body)
        assert response.headers["x-request-id"].startswith("req_")
        assert int(response.headers["openai-processing-ms"]) >= 0


def test_the_head_of_a_stream(http: httpx.Client) -> None:
    headers = {"accept": "application/json", "accept-encoding": "gzip"}
    response = http.post("/v1/chat/completions", json=chat(stream=True), headers=headers)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["transfer-encoding"] == "chunked"
    assert response.headers["connection"] == "keep-alive"
    assert not {"content-length", "content-encoding"} & set(response.headers)


def test_a_stream_is_refused_by_a_status(http: httpx.Client) -> None:
    long = [{"role": "user", "content": "word " * 100_000}]
    response = http.post("/v1/chat/completions", json=chat(stream=True, messages=long))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


def test_head_is_get_without_its_body(http: httpx.Client) -> None:
    for path in ("/health", "/ready", "/v1/models", "/v1/models/echo", "/metrics"):
        get, head = http.get(path), http.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
        assert int(head.headers["content-length"]) > 0


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "api-key"])
def test_where_a_key_may_be(served: Server, name: str) -> None:
    value = f"bearer  {KEY}" if name == "authorization" else KEY
    assert served.request("GET", "/v1/models", headers={name: value})[0] == 200


def test_probes_need_no_key(served: Server) -> None:
    for path in ("/health", "/v1/health", "/ready", "/metrics"):
        assert served.get(path)[0] == 200


# --- CORS ---


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/nowhere", "/v1/models/a/b", "*"])
def test_a_preflight_needs_no_key_and_gets_what_it_asks_for(served: Server, path: str) -> None:
    wanted = "authorization,x-stainless-os,x-session-affinity"
    headers = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": wanted,
    }
    status, found, body = served.request("OPTIONS", path, headers=headers)
    assert (status, body) == (204, b"")
    assert found["access-control-allow-origin"] == ORIGIN
    assert found["access-control-allow-headers"] == wanted
    assert {"GET", "POST"} <= set(found["access-control-allow-methods"].split(", "))
    assert int(found["access-control-max-age"]) > 0
    assert found["vary"] == "origin"


def test_answers_and_refusals_carry_cors(served: Server) -> None:
    origin = {"origin": ORIGIN}
    asked = [
        ("GET", "/v1/models", None, AUTH, 200),
        ("POST", "/v1/chat/completions", CHAT, AUTH, 200),
        ("POST", "/v1/chat/completions", chat(stream=True), AUTH, 200),
        ("POST", "/v1/chat/completions", CHAT, {}, 401),
        ("POST", "/v1/chat/completions", chat(n=0), AUTH, 400),
        ("GET", "/nowhere", None, AUTH, 404),
        ("POST", "/v1/chat/completions", b" " * (2 << 20), AUTH, 413),
        ("POST", "/v1/chat/completions", b"x", {"content-encoding": "br"}, 415),
    ]
    for method, path, body, headers, status in asked:
        found, answered, _ = served.request(method, path, body, {**headers, **origin})
        assert found == status
        assert answered["access-control-allow-origin"] == ORIGIN, (status, path)
        assert set(answered["access-control-expose-headers"].split(", ")) >= EXPOSED


def test_other_origins_get_no_leave(served: Server) -> None:
    for origin in ("http://evil.test", "null", ORIGIN + ":81", ORIGIN.upper()):
        for method in ("GET", "OPTIONS"):
            _, found, _ = served.request(method, "/v1/models", headers={"origin": origin, **AUTH})
            assert "access-control-allow-origin" not in found


def test_cors_is_off_by_default(server: Server) -> None:
    for method in ("GET", "OPTIONS"):
        status, found, _ = server.request(method, "/v1/models", headers={"origin": ORIGIN})
        assert status in (200, 204)
        assert "access-control-allow-origin" not in found


def test_bounds_are_what_pools_and_proxies_need() -> None:
    limits = Limits()
    assert limits.idle_timeout_s >= 120
    assert limits.header_bytes >= 16 << 10
