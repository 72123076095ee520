"""The Python client library: the server's fast lane, over ZeroMQ.

Owns nothing between calls; it needs no HTTP and none of the server's configuration.
"""

from smmf_core.client.aio import AsyncClient, AsyncStream
from smmf_core.client.errors import (
    BadRequest,
    Cancelled,
    ClientError,
    ConnectionLost,
    NotFound,
    Protocol,
    RateLimited,
    RequestError,
    ServerFailed,
    Timeout,
    Unauthorized,
)
from smmf_core.client.sync import Client, Stream
from smmf_core.client.types import (
    Chat,
    Completion,
    Delta,
    Embeddings,
    Model,
    Ranking,
    Scores,
    Tokens,
    ToolCall,
    Usage,
)

__all__ = [
    "AsyncClient",
    "AsyncStream",
    "BadRequest",
    "Cancelled",
    "Chat",
    "Client",
    "ClientError",
    "Completion",
    "ConnectionLost",
    "Delta",
    "Embeddings",
    "Model",
    "NotFound",
    "Protocol",
    "Ranking",
    "RateLimited",
    "RequestError",
    "Scores",
    "ServerFailed",
    "Stream",
    "Timeout",
    "Tokens",
    "ToolCall",
    "Unauthorized",
    "Usage",
]
