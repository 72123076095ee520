"""vLLM's own figures under SMMF's names, collected from what its scheduler reports.

Owns the sums; must not ask the engine for anything.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.engine import EngineCoreEventType


class VllmStats:
    """`note` takes the scheduler's stats of a step: counters in them are of that step only."""

    def __init__(self) -> None:
        self._gauges: dict[int, tuple[int, int, float]] = {}  # per core: running, waiting, KV cache
        self._queries = 0
        self._hits = 0
        self._preemptions = 0

    def note(self, scheduler: Any, core: int = 0) -> None:
        if scheduler is None:
            return
        waiting = scheduler.num_waiting_reqs + getattr(scheduler, "num_skipped_waiting_reqs", 0)
        self._gauges[core] = (scheduler.num_running_reqs, waiting, scheduler.kv_cache_usage)
        prefix = scheduler.prefix_cache_stats
        if prefix is not None:
            self._queries += prefix.queries
            self._hits += prefix.hits

    def note_events(self, events: list[Any]) -> None:
        kinds = [event.type for event in events]
        self.note_preemptions(kinds.count(EngineCoreEventType.PREEMPTED))

    def note_preemptions(self, number: int) -> None:
        self._preemptions += number

    def metrics(self) -> dict[str, float]:
        """Gauges, and counters (`..._total`) since the start. Prefix figures count tokens."""
        gauges = list(self._gauges.values())
        return {
            "running": sum(running for running, _, _ in gauges),
            "waiting": sum(waiting for _, waiting, _ in gauges),
            "kv_cache_usage": max((usage for _, _, usage in gauges), default=0.0),
            "prefix_cache_queries_total": self._queries,
            "prefix_cache_hits_total": self._hits,
            "prefix_cache_hit_rate": self._hits / self._queries if self._queries else 0.0,
            "preemptions_total": self._preemptions,
        }
