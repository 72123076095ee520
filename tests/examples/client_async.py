"""The client library with asyncio: many answers at once over one connection, and one cancelled.

    smmf serve
    python tests/examples/client_async.py

An address may follow, and MODEL names another model: see client_chat.py.
"""

from __future__ import annotations

import asyncio
import os
import sys

from smmf_core.client import AsyncClient, ClientError

MODEL = os.environ.get("MODEL", "demo")
QUESTIONS = [f"What is {number} plus 1?" for number in range(20)]


async def main() -> None:
    address = sys.argv[1] if len(sys.argv) > 1 else None
    async with AsyncClient(address, timeout=60) as client:
        answers = await asyncio.gather(
            *[client.chat(question, model=MODEL, max_tokens=8) for question in QUESTIONS]
        )
        print("answers:", sum(bool(answer.text) for answer in answers))

        stream = await client.chat("Tell me a long story.", model=MODEL, stream=True)
        async for delta in stream:
            if delta.text:
                print("first words:", delta.text.strip())
                break
        stream.cancel()  # the server stops at once
        print("cancelled:", [delta async for delta in stream])


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except ClientError as error:
        sys.exit(f"{type(error).__name__}: {error}")
