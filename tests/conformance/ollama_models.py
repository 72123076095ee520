"""A server of models that Ollama's clients meet, for tests: a key, a queue of one.

The echo engine says " the quick brown fox ..."; model "parrot" says what the last user said. Both
call the tools of a request.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from server import Server, echo_toml

from smmf_core.config import bundled

KEY = "sk-ollama"
HEADERS = {"Authorization": f"Bearer {KEY}"}
USER = {"role": "user", "content": "How is the weather in Köln?"}
TEXT = " the quick brown fox jumps"
FIVE = {"num_predict": 5}
NAMES = ("demo", "echo", "failing", "lazy", "one", "parrot", "vectors")
WAIT_S = 30.0


def make_server(folder: Path) -> Server:
    engine = {"tool_format": "hermes", "reasoning_format": "deepseek_r1"}
    (folder / "local-echo.toml").write_text(echo_toml(engine=engine))
    (folder / "local-parrot.toml").write_text(
        echo_toml("parrot", engine={**engine, "text": "echo"})
    )
    (folder / "local-vectors.toml").write_text(
        '[model]\nname = "vectors"\nbackend = "echo"\ntask = "embed"\n[engine]\ndimensions = 8\n'
    )
    (folder / "local-demo.toml").write_text(
        f'[model]\nname = "demo"\nbackend = "reference"\npath = "{bundled("demo")}"\n'
    )
    fails = {"tokens": 50, "fail": "error:40", "step_ms": 20.0}
    (folder / "local-failing.toml").write_text(echo_toml("failing", engine=fails))
    lazy = {"autostart": False, "keep_alive": "1h"}
    (folder / "local-lazy.toml").write_text(echo_toml("lazy", deployment=lazy))
    one = {"max_concurrency": 1}
    (folder / "local-one.toml").write_text(
        echo_toml("one", engine={"step_ms": 20.0, "tokens": 100}, deployment=one)
    )
    (folder / "smmf.toml").write_text(
        f'[server]\napi_keys = ["{KEY}"]\nmax_body_mb = 1\n[limits]\nmax_queue = 1\n'
    )
    return Server(folder)


def post(served: Server, path: str, **body: Any) -> tuple[int, dict[str, str], bytes]:
    return served.request("POST", path, body, HEADERS)


def lines(body: bytes) -> list[Any]:
    assert body.endswith(b"\n")
    return [json.loads(line) for line in body[:-1].split(b"\n")]
