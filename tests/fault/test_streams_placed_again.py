"""A stream whose Workers die one after the other before its first token: one head, one end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from server import Server, echo_toml


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_it_has_one_head_and_one_end(folder: Path, path: str) -> None:
    (folder / "local-echo.toml").write_text(echo_toml(deployment={"replicas": 3}))
    server = Server(folder).start()
    body: Any = {
        "model": "echo", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}],
        "stream": True, "smmf_echo": {"fail": "crash:1"},
    }  # fmt: skip
    status, _, answer = server.request("POST", path, body)
    assert status == 200
    assert answer.count(b"assistant") == 1
    datas = [line for line in answer.decode().splitlines() if line.startswith("data: {")]
    last = json.loads(datas[-1].removeprefix("data: "))["error"]
    assert last["type"] == "invalid_request_error"
    assert "3 workers that died" in last["message"]
    assert server.stop() == 0
