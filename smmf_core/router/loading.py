"""What a client is told that waited for a model's load for as long as it could. Pure."""

from __future__ import annotations

from smmf_core.errors import ApiError
from smmf_core.router.fleet import Model

_BEFORE = "reserve memory"  # of lifecycle.PHASES
_UNKNOWN_S = 5.0  # to try again after, when nobody knows how long the load takes


def still_loading(model: Model, now: float) -> ApiError:
    """503 `model_loading`: how far the load is, and when to come again.

    1. It cannot begin, and the Controller tells why: nobody knows for how long. 2. The load goes on
    and tells how far it is. 3. Nothing is known.
    """
    name, loading, reason = model.name, model.loading, model.entry.reason
    if reason and (loading is None or loading.phase == _BEFORE):  # 1
        return _error(f"The model '{name}' is not loaded yet: {reason}.", _UNKNOWN_S)
    if loading is not None:  # 2
        text = f"The model '{name}' is loading: {100 * loading.progress:.0f} %"
        if loading.phase not in ("", "load"):
            text += f" ({loading.phase})"
        left_s = loading.ready_in_s - (now - model.loading_at)
        if loading.ready_in_s <= 0:
            return _error(f"{text}.", _UNKNOWN_S)
        left_s = max(1.0, left_s)
        return _error(f"{text}, about {left_s:.0f} s left.", left_s)
    return _error(f"The model '{name}' is still loading.", _UNKNOWN_S)  # 3


def _error(text: str, retry_after_s: float) -> ApiError:
    return ApiError("model_loading", text, "model", retry_after_s)
