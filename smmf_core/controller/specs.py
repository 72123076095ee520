"""What each child is told to be (Welcome.spec), and the name of that: equal names need no restart.

Owns which settings a child depends on; must not send anything.
"""

from __future__ import annotations

import sys

import msgspec

from smmf_core.config import ModelConfig, ServerConfig
from smmf_core.controller.core import ROUTER
from smmf_core.environments.interpreter import interpreter
from smmf_core.lifecycle import Child
from smmf_core.registry import ModelRegistry
from smmf_core.wire.control import spec_digest

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class Specs:
    """Encoded once; digests by the child's model, -1 for Routers."""

    def __init__(self, config: ServerConfig, registry: ModelRegistry) -> None:
        self._configs: dict[int, ModelConfig] = {m.index: m.config for m in registry}
        self._router = _router_spec(config)
        self._digests: dict[int, str] = {}

    def of(self, child: Child) -> bytes:
        if child.role == ROUTER:
            return self._router
        return _encode(msgspec.structs.replace(self._configs[child.model], source=""))

    def digest(self, child: Child) -> str:
        """ "" for a Worker of a model that is no more."""
        if child.role != ROUTER and child.model not in self._configs:
            return ""
        if child.model not in self._digests:
            self._digests[child.model] = spec_digest(self.of(child))
        return self._digests[child.model]

    def python(self, child: Child) -> str:
        """The interpreter: a model's engine may live in an environment of its own.

        Raises CannotStart.
        """
        config = self._configs.get(child.model)
        return sys.executable if config is None else interpreter(config)


def _router_spec(config: ServerConfig) -> bytes:
    """What Routers use: a change of anything else must not restart them."""
    server = msgspec.structs.replace(
        config.server, admin_host="127.0.0.1", admin_port=0, run_dir="", name="default"
    )
    return _encode(msgspec.structs.replace(config, server=server, models=[], source=""))
