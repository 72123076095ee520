"""What keys use of models: counted at each request's one end, told to the Controller in deltas.

Pure. Owns what has not been told yet; must not know limits beyond ending what was taken of them.
"""

from __future__ import annotations

from smmf_core.control_messages import UsageDelta
from smmf_core.router.call import Call, End

_ERROR, _CLIENT_GONE = 400, 499


class Ledger:
    """One count a key and model, so that a Controller that is away does not make it grow."""

    def __init__(self) -> None:
        self._used: dict[tuple[str, str], UsageDelta] = {}

    def ended(self, call: Call, end: End, now_s: int) -> None:
        """A request is over: what it took of its key's limits becomes what it has used. Of one that
        fails again while its failure is told, only the first end counts."""
        usage, admission = end.usage, call.admission
        if admission is not None:
            call.admission = None
            admission.settle(usage.prompt + usage.completion, now_s)
        if not call.is_for_worker:
            return
        call.is_for_worker = False
        used = self._of(call.key.id if call.key is not None else "", call.base_model)
        used.requests += 1
        used.errors += end.status >= _ERROR and end.status != _CLIENT_GONE
        used.prompt += usage.prompt
        used.cached += usage.cached
        used.generated += usage.completion

    def take(self) -> list[UsageDelta]:
        """Everything since the last time."""
        used, self._used = self._used, {}
        return list(used.values())

    def put_back(self, deltas: list[UsageDelta]) -> None:
        """They could not be told."""
        for delta in deltas:
            used = self._of(delta.key, delta.model)
            used.requests += delta.requests
            used.errors += delta.errors
            used.prompt += delta.prompt
            used.cached += delta.cached
            used.generated += delta.generated

    def _of(self, key: str, model: str) -> UsageDelta:
        used = self._used.get((key, model))
        if used is None:
            used = self._used[key, model] = UsageDelta(key, model)
        return used
