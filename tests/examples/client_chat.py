"""The client library: a stream, an answer as a type, tokens.

    smmf serve
    python tests/examples/client_chat.py
    python tests/examples/client_chat.py "tcp://host:port?key=..."

The first asks this user's server on this machine; the address of another one is told by its
`smmf serve`, with [server] zmq_port. MODEL names another model.
"""

from __future__ import annotations

import os
import sys

import msgspec

from smmf_core.client import Client, ClientError, NotFound

MODEL = os.environ.get("MODEL", "demo")
QUESTION = "Name a bird and the number of its legs."


class Bird(msgspec.Struct):
    name: str
    legs: int


def main() -> None:
    address = sys.argv[1] if len(sys.argv) > 1 else None
    with Client(address, timeout=60) as client:
        print("models:", ", ".join(model.id for model in client.models()))

        with client.chat(QUESTION, model=MODEL, stream=True, max_tokens=40) as stream:
            text = "".join(delta.text for delta in stream)
        print("streamed:", text.strip())
        print("tokens:", stream.usage.completion_tokens if stream.usage else 0)

        schema = msgspec.json.schema(Bird)["$defs"]["Bird"]
        shape = {"type": "json_schema", "json_schema": {"name": "bird", "schema": schema}}
        answer = client.chat(QUESTION, model=MODEL, response_format=shape, temperature=0)
        print("typed:", type(answer.parsed(Bird)).__name__)

        tokens = client.tokenize(QUESTION, model=MODEL)
        print("there and back:", client.detokenize(tokens.tokens, model=MODEL))

        try:
            client.chat("hi", model="no-such-model")
        except NotFound as error:
            print("refused:", error.code)


if __name__ == "__main__":
    try:
        main()
    except ClientError as error:
        sys.exit(f"{type(error).__name__}: {error}")
