"""The parts of mlx-lm that its engine uses, imported without what they do to the process.

mlx-lm cuts the hard limit of open files to 4096 when it is imported, which a process that is not
root's cannot take back, nor can those that it starts.
"""

from __future__ import annotations

import resource

_set_limit, resource.setrlimit = resource.setrlimit, lambda resource_, limits: None
try:
    from mlx_lm.models.cache import BatchKVCache, KVCache, make_prompt_cache
    from mlx_lm.utils import load_adapters, load_model, maybe_set_recommended_wired_limit
finally:
    resource.setrlimit = _set_limit

__all__ = [
    "BatchKVCache",
    "KVCache",
    "load_adapters",
    "load_model",
    "make_prompt_cache",
    "maybe_set_recommended_wired_limit",
]
