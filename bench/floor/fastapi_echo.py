"""The floor of a Python server: one FastAPI process on uvicorn that answers with fixed words.

It has no scheduler, no engine, no second process and no checks beyond a JSON body. Usage:
`python fastapi_echo.py PORT TOKENS`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

TOKENS = int(sys.argv[2])
app = FastAPI()
_ENVELOPE = {"id": "chatcmpl-1", "created": 1, "model": "echo"}


def _chunk(delta: dict[str, str], reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    body = {**_ENVELOPE, "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


async def _stream() -> AsyncIterator[bytes]:
    yield _chunk({"role": "assistant", "content": ""}, None)
    for _ in range(TOKENS):
        yield _chunk({"content": " word"}, None)
    yield _chunk({}, "stop")
    usage = {"prompt_tokens": 1, "completion_tokens": TOKENS, "total_tokens": TOKENS + 1}
    yield b"data: " + json.dumps({**_ENVELOPE, "choices": [], "usage": usage}).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


@app.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    body: dict[str, Any] = await request.json()
    if body.get("stream"):
        return StreamingResponse(_stream(), media_type="text/event-stream")
    message = {"role": "assistant", "content": " word" * TOKENS}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": TOKENS, "total_tokens": TOKENS + 1}
    answer = {**_ENVELOPE, "object": "chat.completion", "choices": [choice], "usage": usage}
    return JSONResponse(answer)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
