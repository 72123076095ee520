"""What happens in the server, as lines of the Controller's log.

Owns the words of a line; must not decide what is an event.
"""

from __future__ import annotations

import logging

from smmf_core.lifecycle import BACKOFF, FAILED
from smmf_core.store.records import EventRecord

_log = logging.getLogger("smmf.controller")
_LEVELS = {FAILED: logging.ERROR, BACKOFF: logging.WARNING}
_ALERT = "alert"  # kind of what is told of somebody's health


def log_event(event: EventRecord) -> None:
    """`demo-0 is ready: after 2.1 s`, or `demo-0: what there is to say`."""
    level = logging.WARNING if event.role == _ALERT else _LEVELS.get(event.state, logging.INFO)
    state = f" is {event.state}" if event.state else ""
    reason = f": {event.reason}" if event.reason else ""
    _log.log(level, "%s%s%s", event.id, state, reason)
