"""The Worker's own small requests, through its real core and engine.

Pure: time is a parameter. Owns what such a request is and which are open. One is made after loading
(the warm-up), others when the Controller asks how the Worker does; must not count as clients'.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from smmf_core.control_messages import Probed
from smmf_core.messages import (
    FAIL,
    FINISH,
    Embed,
    Failure,
    Request,
    Sampling,
    Submit,
)
from smmf_core.worker.contract import ENGINE_FAILED, OWN, Core

WARMING_UP = "warm-up"  # the phase (lifecycle.PHASES)
WARM_UP = 0  # the serial of the first, which nobody asked for
_TEXT = "Hello"
_TOKENS = 2  # the prompt's pass, and one of a single token
_ROOM_TOKENS = 16  # a context below has room for one token only
_ATTEMPT = 0


class WarmUpFailed(Exception):
    """The model is loaded, and cannot answer."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the model is loaded, but fails its warm-up request: {reason}")


class Prober:
    """`begin` a probe, let the loop turn, `take` what has ended."""

    def __init__(self, core: Core, task: str) -> None:
        self._core = core
        self._task = task
        self._open: dict[int, float] = {}  # serial -> when it began
        core.add_router(OWN)
        self.records = core.out[OWN]

    def begin(self, serial: int, now: float) -> None:
        """The same serial again changes nothing while it is open."""
        if serial not in self._open:
            self._open[serial] = now
            self._core.on_submit(OWN, self._request(serial), now)

    def take(self, now: float) -> list[Probed]:
        """Those that have ended since."""
        ended: list[Probed] = []
        for kind, serial, _, _, _, payload in self.records:
            if kind in (FINISH, FAIL):
                reason = _reason(payload) if kind == FAIL else ""
                seconds = now - self._open.pop(serial)
                ended.append(Probed(serial, kind == FINISH, seconds, reason))
        self.records.clear()
        return ended

    def check_warm_up(self, now: float) -> bool:
        """Whether it has ended. Raises WarmUpFailed, caused by what the engine raised."""
        for probed in self.take(now):
            if not probed.ok:
                causes = [error for _, error in self._core.tally.failed]
                raise WarmUpFailed(probed.reason) from (causes[-1] if causes else None)
            return True
        return False

    def _request(self, serial: int) -> Request:
        return _REQUESTS[self._task](serial, self._core.spec.context_length)


def _reason(payload: bytes) -> str:
    return msgspec.msgpack.decode(payload, type=Failure).message.removeprefix(ENGINE_FAILED)


def _generate(key: int, context_length: int) -> Request:
    tokens = _TOKENS if context_length >= _ROOM_TOKENS else 1
    sampling = Sampling(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    return Submit(
        key=key,
        attempt=_ATTEMPT,
        request_id="probe",
        model="",
        stream=False,
        n=1,
        messages=None,
        prompts=[_TEXT],
        sampling=sampling,
    )


def _embed(key: int, context_length: int) -> Request:
    return Embed(key, _ATTEMPT, "probe", "", [_TEXT], max_tokens=-1)


def _rerank(key: int, context_length: int) -> Request:
    return Embed(key, _ATTEMPT, "probe", "", [_TEXT], query=_TEXT, max_tokens=-1)


_REQUESTS: dict[str, Callable[[int, int], Request]] = {
    "generate": _generate,
    "embed": _embed,
    "rerank": _rerank,
}
