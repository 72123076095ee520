"""The LoRA adapters of a vLLM engine: which there are, and which sequence uses one.

Owns names and numbers of adapters; loading and unloading is the engine's (`load`, `unload`).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from vllm.lora.request import LoRARequest

from smmf_core.engines.vllm.args import adapter_rank
from smmf_core.errors import ApiError


class VllmAdapters:
    """A name may stand for another folder later: each loading has a number, and vLLM a name, of its
    own, so that no KV cache of the former one is taken for it."""

    def __init__(self, max_rank: int) -> None:
        """`max_rank` 0: the engine was started without LoRA."""
        self._max_rank = max_rank
        self._number = 0
        self._wanted: dict[str, tuple[str, Any]] = {}
        self._leaving: set[int] = set()
        self._users: Counter[int] = Counter()

    def check(self, name: str) -> None:
        """Raises ApiError for an adapter that there is not."""
        if name and name not in self._wanted:
            text = f"There is no adapter {name!r}: {', '.join(self._wanted) or 'none'}."
            raise ApiError("model_not_found", text, "model")

    def plan(self, wanted: dict[str, str]) -> list[Any]:
        """The LoRARequests to load for `wanted`. Raises OSError or ValueError; changes nothing."""
        if wanted and not self._max_rank:
            text = "vLLM was started without LoRA: set enable_lora = true in [engine]."
            raise ValueError(text)
        fresh = []
        for name, path in wanted.items():
            if self._has(name, path):
                continue
            rank = adapter_rank(path)
            if rank > self._max_rank:
                text = f"Adapter {name!r} has rank {rank}: max_lora_rank is {self._max_rank}."
                raise ValueError(text)
            self._number += 1
            unique = f"{name}#{self._number}"
            fresh.append(LoRARequest(unique, self._number, str(Path(path).expanduser())))
        return fresh

    def replace(self, wanted: dict[str, str], loaded: list[Any]) -> None:
        """`wanted` holds from now on; `loaded` is what plan() gave."""
        fresh = {request.lora_name.rpartition("#")[0]: request for request in loaded}
        former = {number for _, number in self._numbers()}
        self._wanted = {
            name: (path, fresh[name] if name in fresh else self._wanted[name][1])
            for name, path in wanted.items()
        }
        self._leaving |= former - {number for _, number in self._numbers()}

    def take(self, name: str) -> Any:
        """The LoRARequest of one more sequence; None for "". Raises ApiError."""
        if not name:
            return None
        self.check(name)
        request = self._wanted[name][1]
        self._users[request.lora_int_id] += 1
        return request

    def give_back(self, request: Any) -> None:
        if request is not None:
            self._users[request.lora_int_id] -= 1

    def unused(self) -> list[int]:
        """Numbers of adapters that are to be unloaded now: gone, and no sequence uses them."""
        numbers = [number for number in self._leaving if not self._users[number]]
        self._leaving.difference_update(numbers)
        return numbers

    def _has(self, name: str, path: str) -> bool:
        return name in self._wanted and self._wanted[name][0] == path

    def _numbers(self) -> list[tuple[str, int]]:
        return [(name, request.lora_int_id) for name, (_, request) in self._wanted.items()]
