"""The names of remote providers, and under which names the mission's files give their keys.

Owns names only; must not know how a provider is spoken to.
"""

from __future__ import annotations

from typing import Final

# Own name -> other names that files use for it.
PROVIDERS: Final[dict[str, tuple[str, ...]]] = {
    "openai": ("openapi", "openai_compatible"),
    "azure": ("azure_openai",),
    "claude": ("anthropic",),
    "gemini": ("google", "bard"),
    "vertex": ("vertex_ai",),
    "bedrock": ("aws",),
    "deepseek": (),
    "tongyi": ("qwen", "dashscope", "alibaba"),
    "wenxin": ("qianfan", "baidu", "ernie"),
    "zhipu": ("chatglm", "glm", "zhipuai", "zai", "bigmodel"),
    "baichuan": (),
    "spark": ("xunfei", "iflytek", "xfyun"),
    "yi": ("lingyiwanwu", "01ai"),
    "moonshot": ("kimi",),
    "hunyuan": ("tencent",),
    "volcengine": ("doubao", "ark"),
    "minimax": (),
    "internlm": (),
    "stepfun": (),
    "siliconflow": (),
    "gitee": ("giteeai",),
    "infiniai": (),
    "aimlapi": (),
    "burncloud": (),
    "orcarouter": (),
    "litellm": (),
    "openrouter": (),
    "mistral": (),
    "groq": (),
    "xai": ("grok",),
    "nvidia": ("nim",),
    "together": (),
    "fireworks": (),
    "perplexity": (),
    "cerebras": (),
    "cohere": (),
    "jina": (),
    "ollama": (),
    "vllm": (),
    "tgi": (),
    "tei": (),
    "tensorrt_llm": ("tensorrt", "trtllm"),
    "triton": (),
    "fastchat": (),
    "llama_cpp_server": ("llama.cpp.server",),
    "lmstudio": ("lm_studio",),
    "sglang": (),
}

# Servers that are attached by their address; the others have one of their own.
ATTACHED: Final = frozenset(
    {"azure", "vllm", "tgi", "tei", "tensorrt_llm", "triton", "fastchat", "llama_cpp_server"}
    | {"sglang"}
)

# What a provider's own key says behind its name -> the key that all have.
OWN_KEYS: Final = {
    "api_key": "proxy_api_key",
    "api_secret": "proxy_api_secret",
    "secret_key": "proxy_api_secret",
    "app_id": "proxy_api_app_id",
    "api_base": "proxy_server_url",
}
_CANONICAL = {other: name for name, others in PROVIDERS.items() for other in (name, *others)}


def canonical(provider: str) -> str | None:
    """The own name of a provider, whatever name it is given by; None: no such provider."""
    return _CANONICAL.get(provider.lower().removeprefix("proxy/").replace("-", "_"))


def own_keys(provider: str) -> dict[str, str]:
    """`wenxin_secret_key` and the like -> the key that means the same for every provider."""
    spoken = "openai" if provider == "azure" else provider
    names = (provider, spoken, *PROVIDERS[provider])
    return {f"{name}_{key}": meant for name in names for key, meant in OWN_KEYS.items()}
