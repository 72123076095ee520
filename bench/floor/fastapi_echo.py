"""The floor of a Python server: one FastAPI process on uvicorn that answers with fixed words.

Written as FastAPI's documentation has it: a typed body, a typed answer. It has no scheduler, no
engine and no second process. Uvicorn runs as `pip install fastapi uvicorn` gives it: on asyncio and
h11. `standard` is uvicorn[standard]: uvloop and httptools, as we use them. `bare` leaves the types
out: the body is parsed and not checked, the answer is a dict.
Usage: `python fastapi_echo.py PORT TOKENS [standard] [bare]`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

TOKENS = int(sys.argv[2])
app = FastAPI()
_ENVELOPE: dict[str, Any] = {"id": "chatcmpl-1", "created": 1, "model": "echo"}


def _chunk(delta: dict[str, str], reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    body = {**_ENVELOPE, "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


async def _stream() -> AsyncIterator[bytes]:
    yield _chunk({"role": "assistant", "content": ""}, None)
    for _ in range(TOKENS):
        yield _chunk({"content": " word"}, None)
    yield _chunk({}, "stop")
    last = {**_ENVELOPE, "choices": [], "usage": _usage()}
    yield b"data: " + json.dumps(last).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


class Message(BaseModel):
    role: str
    content: str | None = None


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Choice(BaseModel):
    index: int
    message: Message
    finish_reason: str


class ChatRequest(BaseModel):
    model: str
    messages: list[Message] = Field(min_length=1)
    stream: bool = False
    stream_options: dict[str, bool] | None = None
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    n: int = Field(1, ge=1, le=128)
    stop: str | list[str] | None = None


class ChatResponse(BaseModel):
    id: str
    object: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


def _usage() -> dict[str, int]:
    return {"prompt_tokens": 1, "completion_tokens": TOKENS, "total_tokens": TOKENS + 1}


async def typed(body: ChatRequest) -> Any:
    if body.stream:
        return StreamingResponse(_stream(), media_type="text/event-stream")
    message = Message(role="assistant", content=" word" * TOKENS)
    choice = Choice(index=0, message=message, finish_reason="stop")
    usage = Usage(**_usage())
    return ChatResponse(**_ENVELOPE, object="chat.completion", choices=[choice], usage=usage)


async def bare(request: Request) -> Response:
    body: dict[str, Any] = await request.json()
    if body.get("stream"):
        return StreamingResponse(_stream(), media_type="text/event-stream")
    message = {"role": "assistant", "content": " word" * TOKENS}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    answer = {**_ENVELOPE, "object": "chat.completion", "choices": [choice], "usage": _usage()}
    return JSONResponse(answer)


if "bare" in sys.argv:
    app.post("/v1/chat/completions")(bare)
else:
    app.post("/v1/chat/completions", response_model=ChatResponse)(typed)

if __name__ == "__main__":
    loop, http = ("uvloop", "httptools") if "standard" in sys.argv else ("asyncio", "h11")
    port = int(sys.argv[1])
    uvicorn.run(app, host="127.0.0.1", port=port, loop=loop, http=http, log_level="warning")
