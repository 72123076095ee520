"""Requests made of our OpenAPI document, good ones and bad ones, against a real server.

Seeded and bounded. Whatever comes: no failure of the server, a refusal is a 400 that names the
field, and an answer is what the document says.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from jsonschema import Draft202012Validator
from server import Server, echo_toml

from smmf_core.api.describe.answers import Error
from smmf_core.api.describe.operations import LINES, OPERATIONS, Operation

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own imports
    import requests
    import schemathesis
    from schemathesis.specs.openapi import checks

MODELS = {
    "generate": "echo", "tokens": "echo", "models": "echo", "embed": "near", "rerank": "rank",
}  # fmt: skip
EXAMPLES = {"positive": 10, "negative": 10}
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
_MOST, _MODEST = f'"maximum": {2**31 - 1}', '"maximum": 200'  # more is over the model's context
POSTS = [operation for operation in OPERATIONS if operation.body is not None]
GETS = [operation for operation in OPERATIONS if operation.body is None]


def model_toml(name: str, task: str) -> str:
    return f'[model]\nname = "{name}"\nbackend = "echo"\ntask = "{task}"\n'


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("fuzz")
    (folder / "local-echo.toml").write_text(echo_toml(deployment={"max_concurrency": 256}))
    (folder / "local-near.toml").write_text(model_toml("near", "embed"))
    (folder / "local-rank.toml").write_text(model_toml("rank", "rerank"))
    started = Server(folder).start()
    yield started
    assert started.stop() == 0


@pytest.fixture(scope="module")
def document(served: Server) -> dict[str, Any]:
    status, headers, body = served.get("/openapi.json")
    assert (status, headers["content-type"]) == (200, "application/json")
    found: dict[str, Any] = json.loads(body)
    return found


def operation_of(document: dict[str, Any], asked: Operation) -> Any:
    """Its model is one that can answer it: another name is refused, and that is all of it. None of
    the requests unloads the model, or has not the time to wait for it."""
    described = json.loads(json.dumps(document).replace(_MOST, _MODEST))
    if asked.body is not None:
        post = described["paths"][asked.path]["post"]
        body = post["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        model = {"type": "string", "enum": [MODELS[asked.tag]]}
        fields = described["components"]["schemas"][_name(body)]["properties"]
        fields["model"] = model
        fields.pop("keep_alive", None)
        headers = post.pop("parameters", [])
        post["parameters"] = [header for header in headers if header["name"] != "X-SMMF-Timeout"]
    schema = schemathesis.openapi.from_dict(described)
    return schema[asked.path]["GET" if asked.body is None else "POST"]


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


def check_refusal(response: requests.Response, asked: Operation) -> None:
    assert response.status_code in (400, 404), (response.status_code, response.text)
    assert len(response.content) < 2000
    error = response.json()["error"]
    if asked.error is not Error:  # there is no field for it: it is in the message
        assert response.json().get("type", "error") == "error"
        return
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    is_unread = error["code"] in (None, "bad_request")  # no JSON object, or no HTTP
    assert isinstance(error["param"], str) or is_unread, error
    assert response.status_code == 400 or error["code"] == "model_not_found"


def check_stream(response: requests.Response, asked: Operation, document: dict[str, Any]) -> None:
    """Every event is as the document says, and the last one is the end."""
    assert response.headers["content-type"][0].startswith(asked.stream)
    if asked.stream == LINES:
        events = [json.loads(line) for line in response.text.splitlines()]
    else:
        lines = response.text.splitlines()
        data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        events = [json.loads(text) for text in data if text != "[DONE]"]
    answer = document["paths"][asked.path]["post"]["responses"]["200"]
    reference = {"$ref": answer["content"][asked.stream]["x-event"]["$ref"]}
    validator = Draft202012Validator({**reference, "components": document["components"]})
    for event in events:
        validator.validate(event)
    assert events


@pytest.mark.parametrize("mode", EXAMPLES)
@pytest.mark.parametrize("asked", POSTS, ids=lambda asked: asked.name)
def test_requests(served: Server, document: dict[str, Any], asked: Operation, mode: str) -> None:
    generation = schemathesis.GenerationMode(mode)
    cases = operation_of(document, asked).as_strategy(generation_mode=generation)
    seen: set[int] = set()
    with requests.Session() as session:

        @seed(1)
        @settings(
            max_examples=EXAMPLES[mode], database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=cases)
        def ask(case: Any) -> None:
            root = f"http://127.0.0.1:{served.port}"
            response = case.call(base_url=root, session=session, timeout=60)
            seen.add(response.status_code)
            if response.status_code != 200:
                check_refusal(response, asked)
            elif not response.headers["content-type"][0].startswith("application/json"):
                check_stream(response, asked, document)
            case.validate_response(response, checks=CHECKS)

        ask()
    assert seen <= {200, 400, 404}
    assert (200 if mode == "positive" else 400) in seen


@pytest.mark.parametrize("asked", GETS, ids=lambda asked: asked.name)
def test_questions(served: Server, document: dict[str, Any], asked: Operation) -> None:
    operation = operation_of(document, asked)
    path = {"id": "echo"} if asked.param else None
    case = operation.Case(path_parameters=path)
    response = case.call(base_url=f"http://127.0.0.1:{served.port}", timeout=60)
    assert response.status_code == 200
    case.validate_response(response, checks=CHECKS)
