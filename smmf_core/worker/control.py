"""The Worker's side of the control socket: what it is told to be, and what it reports.

Owns the Worker's state as the Controller sees it; must not run the engine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from smmf_core import __version__
from smmf_core.config import ModelConfig
from smmf_core.control_messages import (
    Adapters,
    Attach,
    Detach,
    Drain,
    Hello,
    Inspect,
    Inspected,
    Probe,
    Probed,
    Welcome,
    WorkerReport,
)
from smmf_core.messages import PROTOCOL
from smmf_core.native._heartbeat import Heartbeat
from smmf_core.wire.control import ControlClient, heartbeat_packet
from smmf_core.worker.contract import Core
from smmf_core.worker.links import Links
from smmf_core.worker.probe import Prober
from smmf_core.worker.watch import Watch, native_threads, python_threads, requests_of

_REPORT_S = 1.0
_HEARTBEAT_S = 1.0


class WorkerControl:
    """Talks to the Controller, whoever it is now. `drain_until` is set once the Worker must end."""

    def __init__(self, run_dir: Path, worker: int, incarnation: int) -> None:
        self.worker = worker
        self.incarnation = incarnation
        self.config: ModelConfig | None = None
        self.links: Links | None = None
        self.core: Core | None = None
        self.state = "loading"
        self.phase = "load"
        self.progress = 0.0
        self.reason = ""
        self.steps = 0
        self.drain_until: float | None = None
        self._welcome = Welcome(PROTOCOL, b"")
        self._client = ControlClient(run_dir, self._hello)
        self._heartbeat = Heartbeat(heartbeat_packet(), _HEARTBEAT_S)
        self._report_at = 0.0
        self._began_at = time.monotonic()
        self._watch = Watch()
        self._prober: Prober | None = None
        self.adapters: dict[str, str] = {}
        self._wanted: Adapters | None = None  # to be applied between steps
        self._adapter_serial = 0
        self._adapter_error = ""
        self.metrics: Callable[[], dict[str, float]] = dict
        self._early: list[tuple[Attach, list[int]]] = []  # Routers that came while loading

    @property
    def fd(self) -> int:
        return self._client.fd

    @property
    def next_report(self) -> float:
        return self._report_at

    def turn(self, now: float) -> None:
        """Reconnect if need be, take all messages, report once a second."""
        if self._client.fd < 0:
            self._client.connect(now)
            self._heartbeat.follow(self._client.fd)
        for message, fds in self._client.receive():
            self._on_message(message, fds, now)
        self._check_grace(now)
        if now >= self._report_at:
            self._report_at = now + _REPORT_S
            self.report()

    def after_step(self, now: float) -> None:
        """Note what the step has brought; `now` is after it. Cheap when that was tokens only."""
        core, prober = self.core, self._prober
        if core is not None and (core.tally.begun or core.tally.failed):
            self._watch.take(core.tally, now)
        if prober is not None and prober.records:
            for probed in prober.take(now):
                self._client.send(probed)

    def loaded(self, core: Core, links: Links, prober: Prober) -> None:
        """The model answers: say so, and connect to the Routers."""
        self.core, self.links, self._prober = core, links, prober
        for attach, fds in self._early:
            links.attach(attach, fds)
        self._early.clear()
        self.phase, self.progress = "ready", 1.0
        self.set_state("ready")

    def set_phase(self, phase: str) -> None:
        self.phase = phase
        self.report()

    def set_state(self, state: str, reason: str = "") -> None:
        self.state, self.reason = state, reason
        self.report()

    def drain(self, until: float) -> None:
        """Called by a signal's handler too, in the midst of anything: `turn` tells it."""
        if self.drain_until is None:
            self.drain_until = until
            self.state = "draining"
            self._report_at = 0.0

    def apply_adapters(self, engine: object) -> None:
        """Have the engine load and unload what the Controller asked for; tell how it went."""
        wish, self._wanted = self._wanted, None
        if wish is None:
            return
        set_adapters = getattr(engine, "set_adapters", None)
        try:
            if set_adapters is None:
                raise ValueError("This backend does not take adapters.")
            set_adapters(wish.wanted)
            self.adapters, self._adapter_error = wish.wanted, ""
        except Exception as error:  # a file or a library: the former set stays
            self._adapter_error = str(error) or type(error).__name__
        self._adapter_serial = wish.serial
        self.report()

    def report(self) -> None:
        core = self.core
        report = WorkerReport(
            state=self.state,
            progress=self.progress,
            reason=self.reason,
            context_length=0,
            capabilities=[],
            running=0,
            waiting=0,
            steps=self.steps,
            tokens=0,
            adapters=self.adapters,
            adapter_error=self._adapter_error,
            adapter_serial=self._adapter_serial,
            phase=self.phase,
        )
        if core is not None:
            spec, tally = core.spec, core.tally
            report.context_length, report.capabilities = spec.context_length, spec.capabilities
            report.device, report.dimensions = spec.device, core.dimensions
            report.running, report.waiting, report.tokens = core.running, core.waiting, core.tokens
            report.finished, report.faults = tally.finished, tally.faults
            report.first_token_s = self._watch.first_token_s()
            report.metrics = self.metrics()
        self._client.send(report)

    def close(self) -> None:
        """No more heartbeats: the process is about to end."""
        self._heartbeat.stop()
        self._client.close()

    def _on_message(self, message: object, fds: list[int], now: float) -> None:
        if isinstance(message, Welcome):
            self._welcome = message
            if self.config is None:
                self.config = msgspec.msgpack.decode(message.spec, type=ModelConfig)
        elif isinstance(message, Attach):
            if self.links is not None:
                self.links.attach(message, fds)
            else:
                self._early.append((message, fds))
            return
        elif isinstance(message, Detach):
            self._detach((message.router, message.epoch))
        elif isinstance(message, Adapters):
            self._wanted = message
        elif isinstance(message, Drain):
            self.drain(now + message.timeout_s)
        elif isinstance(message, Probe):
            self._probe(message.serial, now)
        elif isinstance(message, Inspect):
            self._client.send(Inspected(message.serial, self._facts(now)))
        for fd in fds:
            os.close(fd)

    def _probe(self, serial: int, now: float) -> None:
        if self._prober is None:
            self._client.send(Probed(serial, False, 0.0, f"it is in the phase {self.phase!r}"))
        else:
            self._prober.begin(serial, now)

    def _facts(self, now: float) -> dict[str, Any]:
        """The live state, for `smmf debug`."""
        core, links = self.core, self.links
        facts: dict[str, Any] = {
            "state": self.state,
            "phase": self.phase,
            "pid": os.getpid(),
            "incarnation": self.incarnation,
            "uptime_s": round(now - self._began_at, 3),
            "steps": self.steps,
            "adapters": self.adapters,
            "last_errors": self._watch.failures,
            "threads": python_threads(),
            "native_threads": native_threads(),
        }
        if core is not None and links is not None:
            facts["slots"] = {"running": core.running, "waiting": core.waiting, "open": len(core)}
            facts["requests"] = requests_of(core, now)
            facts["tokens"] = core.tokens
            facts["finished"], facts["faults"] = core.tally.finished, core.tally.faults
            facts["routers"] = links.describe()
            facts["metrics"] = self.metrics()
        return facts

    def _detach(self, router: tuple[int, int]) -> None:
        if self.links is not None:
            self.links.detach(router)
            return
        for attach, fds in self._early:
            if (attach.router, attach.epoch) == router:
                for fd in fds:
                    os.close(fd)
        self._early = [e for e in self._early if (e[0].router, e[0].epoch) != router]

    def _check_grace(self, now: float) -> None:
        lost = self._client.lost_since
        if lost is not None and now - lost > self._welcome.grace_s:
            self.drain(now + self._welcome.drain_s)

    def _hello(self) -> tuple[Hello, list[int]]:
        hello = Hello(
            protocol=PROTOCOL,
            build=__version__,
            role="worker",
            id=self.worker,
            incarnation=self.incarnation,
            pid=os.getpid(),
            spec_hash=self._client.spec_hash,
            state=self.state,
            attached=self.links.attached if self.links is not None else [],
        )
        return hello, []
