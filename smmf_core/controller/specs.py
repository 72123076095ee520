"""What each child is told to be (Welcome.spec), and the name of that: equal names need no restart.

Owns which settings a Router depends on; must not send anything.
"""

from __future__ import annotations

import sys

import msgspec

from smmf_core.config import Deployment, ModelConfig, Routing, ServerConfig
from smmf_core.controller.table import ROUTER
from smmf_core.environments.interpreter import interpreter
from smmf_core.errors import CannotStart
from smmf_core.lifecycle import Child
from smmf_core.registry import LiveRegistry
from smmf_core.store.location import lane_key
from smmf_core.wire.control import spec_digest

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class Specs:
    """Digests of models are kept until the model's config is another one."""

    def __init__(self, config: ServerConfig, registry: LiveRegistry) -> None:
        self._server = config
        self._registry = registry
        self._digests: dict[int, tuple[ModelConfig, str]] = {}

    def of(self, child: Child) -> bytes:
        config = self._config(child)
        if child.role == ROUTER or config is None:
            return _router_spec(self._server)
        return _encode(_worker_spec(config))

    def digest(self, child: Child) -> str:
        """ "" for a Worker of a model that is no more."""
        config = self._config(child)
        if child.role == ROUTER:
            return spec_digest(self.of(child))
        if config is None:
            return ""
        kept = self._digests.get(child.model)
        if kept is None or kept[0] is not config:
            kept = self._digests[child.model] = (config, spec_digest(self.of(child)))
        return kept[1]

    def python(self, child: Child) -> str:
        """The interpreter: a model's engine may live in an environment of its own.

        Raises CannotStart.
        """
        config = self._config(child)
        if config is None:
            return sys.executable
        if config.why_not_served:
            raise CannotStart(config.why_not_served)
        return interpreter(config)

    def _config(self, child: Child) -> ModelConfig | None:
        model = self._registry.by_index(child.model)
        return model.config if model is not None else None


def _worker_spec(config: ModelConfig) -> ModelConfig:
    """What Workers use. One that is placed on a certain GPU sees that one only, as its first."""
    plain = Deployment()
    device = config.deployment.device
    deployment = msgspec.structs.replace(
        config.deployment,
        device="cuda:0" if device.startswith("cuda:") else device,
        weight=plain.weight,
        memory_gib=plain.memory_gib,
        autostart=plain.autostart,
        min_replicas=plain.min_replicas,
        max_replicas=plain.max_replicas,
        keep_alive=plain.keep_alive,
    )
    model = msgspec.structs.replace(config.model, aliases=[], cost=0.0)
    return msgspec.structs.replace(
        config, model=model, deployment=deployment, inference={}, routing=Routing(), source=""
    )


def _router_spec(config: ServerConfig) -> bytes:
    """What Routers use: a change of anything else must not restart them."""
    server = msgspec.structs.replace(
        config.server,
        admin_host="127.0.0.1",
        admin_port=0,
        run_dir="",
        name="default",
        api_keys=[],  # of keys they hear by Keys
        no_auth=False,
        zmq_key=str(lane_key(config.server)) if config.server.zmq_port else "",
    )
    plain = ServerConfig()
    return _encode(
        msgspec.structs.replace(
            config,
            server=server,
            health=plain.health,
            memory=plain.memory,
            registry=plain.registry,
            models=[],
            source="",
        )
    )
