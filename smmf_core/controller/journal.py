"""What happened: the last changes of state, alerts and operators' acts, in memory, log and store.

Owns the events that are shown; must not cause one.
"""

from __future__ import annotations

import time
from collections import deque

from smmf_core.controller.event_log import log_event
from smmf_core.lifecycle import READY, Child
from smmf_core.store.records import EventRecord
from smmf_core.store.writer import Store

KEPT = 1000


class Journal:
    """`events`: oldest first; those of a former run come before this one's."""

    def __init__(self, store: Store | None) -> None:
        self.events: deque[EventRecord] = deque(maxlen=KEPT)
        self._store = store

    def changed(self, child: Child, former: str) -> None:
        """A child has another state than before."""
        took = f"after {child.load_s:.1f} s" if child.state == READY and child.load_s else ""
        reason = child.reason or took
        self._add(child.role, child.name, former, child.state, reason, child.pid)

    def note(self, kind: str, name: str, text: str) -> None:
        """Of a model, an alert, the server itself."""
        self._add(kind, name, "", "", text, 0)

    def recall(self, events: list[EventRecord]) -> None:
        """A former run's, oldest first: as many as there is room for."""
        room = KEPT - len(self.events)
        self.events.extendleft(reversed(events[-room:] if room else []))

    def _add(self, role: str, name: str, former: str, state: str, reason: str, pid: int) -> None:
        event = EventRecord(
            time=time.time(), role=role, id=name, former=former, state=state, reason=reason, pid=pid
        )
        self.events.append(event)
        log_event(event)
        if self._store is not None:
            self._store.save_event(event)
