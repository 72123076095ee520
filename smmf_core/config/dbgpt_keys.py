"""DB-GPT's keys and where each stands in our files.

Owns the tables; must not read a file.
"""

from __future__ import annotations

from typing import Final

Place = tuple[str, str]  # our section and key

LISTS: Final = {"llms": "generate", "embeddings": "embed", "rerankers": "rerank"}

BACKENDS: Final = {
    "hf": "transformers",
    "qwen": "transformers",  # its rerankers
    "vllm": "vllm",
    "llama.cpp": "llama_cpp",
    "llama.cpp.server": "llama_cpp",
    "mlx": "mlx",
}

_COMMON: Final[dict[str, Place]] = {
    "path": ("model", "path"),
    "device": ("deployment", "device"),
    "concurrency": ("deployment", "max_concurrency"),
}
_LLAMA_CPP: Final[dict[str, Place]] = {
    **_COMMON,
    "context_length": ("engine", "n_ctx"),
    "n_threads": ("engine", "n_threads"),
    "n_batch": ("engine", "n_batch"),
    "n_gpu_layers": ("engine", "n_gpu_layers"),
}
LOCAL: Final[dict[str, dict[str, Place]]] = {
    "hf": {
        **_COMMON,
        "context_length": ("engine", "max_model_len"),
        "max_length": ("engine", "max_model_len"),
        "trust_remote_code": ("engine", "trust_remote_code"),
        "num_gpus": ("deployment", "gpus"),
        "torch_dtype": ("optimization", "dtype"),
        "attn_implementation": ("optimization", "attention"),
        "normalize_embeddings": ("engine", "normalize"),
    },
    "vllm": {
        **_COMMON,
        "context_length": ("engine", "max_model_len"),
        "dtype": ("optimization", "dtype"),
    },
    "llama.cpp": _LLAMA_CPP,
    "llama.cpp.server": {
        **_LLAMA_CPP,
        "threads": ("engine", "n_threads"),
        "batch_size": ("engine", "n_batch"),
        "ubatch_size": ("engine", "n_ubatch"),
        "n_slots": ("deployment", "max_concurrency"),
    },
    "mlx": {**_COMMON, "context_length": ("engine", "max_model_len")},
}
LOCAL["qwen"] = LOCAL["hf"]

REMOTE: Final[dict[str, Place]] = {
    "backend": ("proxy", "model"),
    "api_base": ("proxy", "proxy_server_url"),
    "api_url": ("proxy", "proxy_server_url"),
    "api_version": ("proxy", "proxy_api_version"),
    "http_proxy": ("proxy", "proxies"),
    "api_key": ("authentication", "proxy_api_key"),
    "api_secret": ("authentication", "proxy_api_secret"),
    "concurrency": ("deployment", "max_concurrency"),
    "thinking_enabled": ("parameters", "thinking_enabled"),
}

# Values that have another name here.
VALUES: Final[dict[Place, dict[object, object]]] = {
    ("optimization", "dtype"): {"half": "float16", "float": "float32"},
    ("engine", "n_gpu_layers"): {1_000_000_000: -1},
}

# What every server here does anyhow, or what only DB-GPT's own log and prompts knew.
SILENT: Final = frozenset({"name", "provider", "type", "verbose", "low_cpu_mem_usage"})

# [service.model.*], [system] and [log] -> ours
SERVER: Final[dict[tuple[str, ...], Place]] = {
    ("service", "model", "api", "host"): ("server", "host"),
    ("service", "model", "api", "port"): ("server", "port"),
    ("service", "model", "api", "api_keys"): ("server", "api_keys"),
    ("service", "model", "api", "cors_allowed_origins"): ("server", "cors_origins"),
    ("service", "model", "controller", "host"): ("server", "admin_host"),
    ("service", "model", "controller", "port"): ("server", "admin_port"),
    ("service", "model", "controller", "heartbeat_timeout_secs"): ("health", "heartbeat_s"),
    ("system", "api_keys"): ("server", "api_keys"),
    ("system", "log_level"): ("log", "level"),
    ("log", "level"): ("log", "level"),
}
LISTED: Final = frozenset({("server", "api_keys"), ("server", "cors_origins")})
LEVELS: Final = {"warn": "warning", "fatal": "error", "critical": "error", "trace": "debug"}
PORTS: Final = {"port": 8100, "admin_port": 8000}  # DB-GPT's own, of its API server and controller
