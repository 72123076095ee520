"""vLLM's own figures under SMMF's names, collected from what its scheduler reports.

Owns the sums; must not ask the engine for anything.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.engine import EngineCoreEventType

from smmf_core.engines.vllm.room import Entry

_COUNTERS = (
    "queue_seconds", "scheduled",
    "prefill_seconds", "first_token_seconds", "first_tokens",
    "decode_seconds", "decode_tokens",
)  # fmt: skip


class VllmStats:
    """`note` takes the scheduler's stats of a step: counters in them are of that step only."""

    def __init__(self) -> None:
        self._gauges: dict[int, tuple[int, int, float]] = {}  # per core: running, waiting, KV cache
        self._queries = 0
        self._hits = 0
        self._preemptions = 0
        self._retries = 0
        self._counters = dict.fromkeys(_COUNTERS, 0.0)

    def note(self, scheduler: Any, core: int = 0) -> None:
        if scheduler is None:
            return
        waiting = scheduler.num_waiting_reqs + getattr(scheduler, "num_skipped_waiting_reqs", 0)
        self._gauges[core] = (scheduler.num_running_reqs, waiting, scheduler.kv_cache_usage)
        prefix = scheduler.prefix_cache_stats
        if prefix is not None:
            self._queries += prefix.queries
            self._hits += prefix.hits

    def note_events(self, entry: Entry, events: list[Any]) -> None:
        for event in events:
            if event.type == EngineCoreEventType.PREEMPTED:
                self._preemptions += 1
            elif event.type == EngineCoreEventType.SCHEDULED and not entry.scheduled_at:
                entry.scheduled_at = event.timestamp
                self._add(queue_seconds=event.timestamp - entry.entered_at, scheduled=1)

    def note_first(self, entry: Entry, now: float) -> None:
        """Its first token is there."""
        entry.first_at = now
        since_scheduled = now - (entry.scheduled_at or entry.entered_at)
        self._add(
            prefill_seconds=since_scheduled,
            first_token_seconds=now - entry.entered_at,
            first_tokens=1,
        )

    def note_end(self, entry: Entry, now: float) -> None:
        if entry.tokens > 1:
            self._add(decode_seconds=now - entry.first_at, decode_tokens=entry.tokens - 1)

    def note_retry(self) -> None:
        self._retries += 1

    def note_iteration(self, iteration: Any) -> None:
        """What vLLM's own front end has counted in a step."""
        self._preemptions += iteration.num_preempted_reqs
        firsts, others = iteration.time_to_first_tokens_iter, iteration.inter_token_latencies_iter
        self._add(first_token_seconds=sum(firsts), first_tokens=len(firsts))
        self._add(decode_seconds=sum(others), decode_tokens=len(others))
        for ended in iteration.finished_requests:
            self._add(queue_seconds=ended.queued_time, scheduled=1)
            self._add(prefill_seconds=ended.prefill_time)

    def metrics(self) -> dict[str, float]:
        """Gauges, and counters (`..._total`) since the start. Prefix figures count tokens.

        Latencies are sums, each to be divided by its count: `queue_seconds` by `scheduled`,
        `prefill_seconds` and `first_token_seconds` by `first_tokens`, `decode_seconds` by
        `decode_tokens`, which are those after the first.
        """
        gauges = list(self._gauges.values())
        return {
            "running": sum(running for running, _, _ in gauges),
            "waiting": sum(waiting for _, waiting, _ in gauges),
            "kv_cache_usage": max((usage for _, _, usage in gauges), default=0.0),
            "prefix_cache_queries_total": self._queries,
            "prefix_cache_hits_total": self._hits,
            "prefix_cache_hit_rate": self._hits / self._queries if self._queries else 0.0,
            "preemptions_total": self._preemptions,
            "memory_retries_total": self._retries,
            **{f"{name}_total": value for name, value in self._counters.items()},
        }

    def _add(self, **values: float) -> None:
        for name, value in values.items():
            self._counters[name] += value
