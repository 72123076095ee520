"""Asks a server through the unchanged `dbgpt` package, and prints what its classes return as JSON.

Runs in an environment of its own (test_dbgpt_client.py starts it): `asks.py http://127.0.0.1:PORT`.
It must not import anything of SMMF.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from dbgpt.core import HumanPromptTemplate, ModelMessage, ModelOutput, ModelRequest
from dbgpt.core.awel import DAG, InputOperator, SimpleCallDataInputSource
from dbgpt.core.operators import PromptBuilderOperator, RequestBuilderOperator
from dbgpt.model.operators import (
    LLMOperator,
    OpenAIStreamingOutputOperator,
    StreamingLLMOperator,
)
from dbgpt.model.proxy.llms.chatgpt import OpenAILLMClient
from dbgpt.rag.embedding import OpenAPIEmbeddings, OpenAPIRerankEmbeddings

Answer = dict[str, Any]


def chat_client(server: str, model: str) -> OpenAILLMClient:
    return OpenAILLMClient(
        api_base=f"{server}/v1", api_key="unused", model=model, model_alias=model
    )


def request(model: str, said: str, **fields: Any) -> ModelRequest:
    return ModelRequest.build_request(model, [ModelMessage.build_human_message(said)], **fields)


def shown(output: ModelOutput) -> Answer:
    return {
        "text": output.text if output.has_text else "",
        "thinking": output.thinking_text,
        "error_code": output.error_code,
        "usage": output.usage,
    }


# --- the proxy client ---


async def whole(server: str, model: str, said: str, **fields: Any) -> Answer:
    return shown(await chat_client(server, model).generate(request(model, said, **fields)))


async def streamed(server: str, model: str, said: str, **fields: Any) -> list[Answer]:
    outputs = chat_client(server, model).generate_stream(request(model, said, **fields))
    return [shown(output) async for output in outputs]


# --- embeddings and rerank ---


async def vectors(server: str, path: str) -> Answer:
    embeddings = OpenAPIEmbeddings(api_url=server + path, api_key="unused", model_name="near")
    texts = ["the cat sat", "the cat slept", "stock market news"]
    return {
        "documents": embeddings.embed_documents(texts),
        "query": embeddings.embed_query(texts[0]),
        "awaited": await embeddings.aembed_documents(texts),
    }


async def relevance(server: str, path: str) -> Answer:
    ranker = OpenAPIRerankEmbeddings(api_url=server + path, api_key="unused", model_name="rank")
    documents = ["stock market", "green birds sing", "green trees"]
    return {
        "scores": ranker.predict("green birds", documents),
        "awaited": await ranker.apredict("green birds", documents),
    }


# --- AWEL flows ---


async def flow(server: str) -> str:
    """A prompt template, a request, DB-GPT's LLM operator."""
    with DAG("whole"):
        source = InputOperator(SimpleCallDataInputSource())
        prompt = PromptBuilderOperator(HumanPromptTemplate.from_template("Repeat: {word}"))
        build = RequestBuilderOperator(model="parrot")
        task = LLMOperator(chat_client(server, "parrot"))
        source >> prompt >> build >> task
    output: ModelOutput = await task.call({"word": "zorp"})
    return output.text


async def streaming_flow(server: str) -> list[str]:
    with DAG("streaming"):
        source = InputOperator(SimpleCallDataInputSource())
        build = RequestBuilderOperator(model="words")
        task = StreamingLLMOperator(chat_client(server, "words"))
        source >> build >> task
    return [output.text async for output in await task.call_stream("Tell me a story.")]


async def openai_flow(server: str) -> list[str]:
    """As DB-GPT's own OpenAI-like endpoint streams to its clients."""
    with DAG("openai"):
        source = InputOperator(SimpleCallDataInputSource())
        model = StreamingLLMOperator(chat_client(server, "words"))
        task = OpenAIStreamingOutputOperator()
        source >> model >> task
    said = request("words", "Tell me a story.")
    return [event async for event in await task.call_stream(said)]


async def main(server: str) -> Answer:
    thought = "<think>So it is.</think>Three."
    return {
        "whole": await whole(server, "words", "hi", temperature=0.5, top_p=0.9),
        "cut": await whole(server, "words", "hi", max_new_tokens=3),
        "stopped": await whole(server, "words", "hi", stop=[" fox"]),
        "streamed": await streamed(server, "words", "hi"),
        "thinking": await whole(server, "thinker", thought),
        "thinking_streamed": await streamed(server, "thinker", thought),
        "unknown": await whole(server, "nobody", "hi"),
        "embeddings": await vectors(server, "/v1/embeddings"),
        "embeddings_of_api": await vectors(server, "/api/v1/embeddings"),
        "relevance": await relevance(server, "/v1/beta/relevance"),
        "relevance_of_api": await relevance(server, "/api/v1/beta/relevance"),
        "flow": await flow(server),
        "streaming_flow": await streaming_flow(server),
        "openai_flow": await openai_flow(server),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1]))))
