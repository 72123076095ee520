"""The Controller's part in API keys, on a real store: usage, and what Routers are told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from smmf_core.config import ServerConfig
from smmf_core.control_messages import Keys, UsageDelta
from smmf_core.controller.access import Access
from smmf_core.lifecycle import Child
from smmf_core.store.asked import Asked
from smmf_core.store.records import Stored
from smmf_core.store.writer import StoreWriter


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoreWriter]:
    writer = StoreWriter(f"sqlite:///{tmp_path / 'registry.db'}", "default", 1.0)
    loaded = threading.Event()
    writer.load(lambda _: loaded.set())
    assert loaded.wait(60)
    yield writer
    assert writer.close(60)


def test_the_store_hears_of_usage_at_once(store: StoreWriter, tmp_path: Path) -> None:
    """A Controller that is killed a moment later has nothing more to lose."""
    access = Access(ServerConfig(), tmp_path, store, lambda *_: None, list)
    access.used([UsageDelta("key", "m", 2, 1, 10, 4, 7), UsageDelta("", "m", 1)])
    access.used([UsageDelta("key", "m", 1, 0, 5, 0, 3)])
    access.used([])
    rows = store.read_usage(Asked(by=("key_id",)))
    assert [row["key"] for row in rows] == ["", "key"]
    assert rows[1] == {
        "key": "key", "requests": 3, "errors": 1, "prompt": 15, "cached": 4, "generated": 10
    }  # fmt: skip
    assert set(access.last_used) == {"", "key"}


def test_a_database_that_is_late_may_have_more_keys_than_the_configured(tmp_path: Path) -> None:
    config = ServerConfig()
    config.server.api_keys = ["mine"]
    told: list[Keys] = []
    router = Child("router", 0, "router-0")
    access = Access(config, tmp_path, None, lambda _, keys, __: told.append(keys), lambda: [router])
    access.begin({0}, Stored(is_read=False))
    access.welcome(router)
    assert (told[-1].required, bool(told[-1].unknown)) == (True, True)
    access.learn(Stored())
    assert (told[-1].required, told[-1].unknown) == (True, "")
    access.close()
