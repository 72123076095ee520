"""Cleans the KV cache after a request whose logits were not numbers.

A masked position weighs nothing, but nothing times NaN is NaN: a block that such a request leaves
spoils the next request that gets it. Must not decide which request failed.
"""

from __future__ import annotations

from typing import Any


def drop_prefix(core: Any, name: str, has_finished: bool) -> None:
    """Nobody shall find what request `name` has computed. Called before it is aborted.

    A request that has finished has given its blocks back unnamed: then the whole prefix cache goes,
    and what runs is computed again.
    """
    scheduler = core.scheduler
    if has_finished:
        scheduler.reset_prefix_cache(reset_running_requests=True)
        return
    for blocks in scheduler.kv_cache_manager.get_block_ids(name):
        scheduler.kv_cache_manager.evict_blocks(set(blocks))


def clean(core: Any) -> None:
    """Put zeros where the KV cache has no numbers."""
    core.collective_rpc(_clean_worker)


def _clean_worker(worker: Any) -> None:
    for entry in worker.model_runner.kv_caches:
        for tensor in entry if isinstance(entry, list | tuple) else [entry]:
            if tensor.is_floating_point() and tensor.element_size() > 1:  # not for 8-bit caches
                tensor.nan_to_num_()
