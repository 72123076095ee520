"""What can happen to the registry's file in use: nobody is held up, nothing is lost."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_suite import Run, config, event, until

from smmf_core.store.asked import Asked
from smmf_core.store.outbox import EVENTS_WAITING, Outbox
from smmf_core.store.records import InstanceRecord, ModelChange, StoreError, Usage, UsageKey
from smmf_core.store.storage import SQLAlchemyStorage

TODAY = UsageKey("2026-01-01", "a", "m")
FULL_DISK = """
import resource, signal, sys
from store_suite import Run, config, event, until
from smmf_core.store.records import ModelChange

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # "file too large", as a full disk would say it
run = Run(sys.argv[1]).begin()
run.settle()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
for number in range(3000):
    run.writer.save_event(event(number))
run.writer.save_model(ModelChange(model_name="a", config=config("a")))
until(lambda: not run.writer.state.is_available)
print(run.writer.state.last_error)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
run.end()
"""
READ_ONLY = """
import os, sys
from store_suite import Run, config
from smmf_core.store import scribe
from smmf_core.store.records import ModelChange

warm = Run("sqlite://").begin()  # imports everything that the next user may not be able to read
warm.settle()
if os.geteuid() == 0:  # whom no permission stops
    os.setgid(65534)
    os.setuid(65534)
run = Run(sys.argv[1]).begin()
run.writer.save_model(ModelChange(model_name="a", config=config("a")))
assert not run.writer.close(60)
state = run.writer.state
assert not state.is_available
assert state.waiting == 1
assert all(not stored.is_read and stored.models == [] for stored in run.loaded), run.loaded
print(state.last_error)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "registry.db"


@pytest.fixture
def url(file: Path) -> str:
    return f"sqlite:///{file}"


def events_in(url: str) -> list[str]:
    storage = SQLAlchemyStorage(url)
    storage.open()
    try:
        return [record.id for record in storage.events(100_000)]
    finally:
        storage.close()


def python(code: str, *arguments: str) -> str:
    tests = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def other(file: Path, url: str) -> Iterator[sqlite3.Connection]:
    """Another user of the same file, whose lock does not go by itself."""
    connection = sqlite3.connect(file, isolation_level=None)
    yield connection
    connection.close()


def test_a_locked_file(
    url: str, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smmf_core.store.database.BUSY_S", 0.05)
    run = Run(url).begin()
    run.settle()
    other.execute("BEGIN IMMEDIATE")
    for number in range(3000):
        run.writer.save_event(event(number))
    until(lambda: not run.writer.state.is_available)
    assert "database is locked" in run.writer.state.last_error
    other.execute("ROLLBACK")
    run.end()
    assert events_in(url) == [f"m-{number}" for number in range(3000)]


def test_a_file_that_is_deleted_is_made_again(file: Path, url: str) -> None:
    run = Run(url).begin()
    run.writer.save_model(ModelChange(model_name="a", config=config("a"), replicas=2))
    run.writer.save_alias("best", "a")
    run.settle()
    for path in file.parent.iterdir():
        path.unlink(missing_ok=True)
    run.writer.save_instance(InstanceRecord("a-0", "a", "ready"))
    run.writer.save_event(event(1))
    run.end()
    again = Run(url).begin()
    (stored,) = again.loaded
    assert [(model.model_name, model.replicas) for model in stored.models] == [("a", 2)]
    assert (stored.aliases, stored.events) == ({"best": "a"}, [event(1)])
    again.end()


def test_a_file_that_breaks_while_it_is_used(file: Path, url: str) -> None:
    """It is left as it is for whoever can mend it; once it is moved away, all is written anew."""
    run = Run(url).begin()
    run.writer.save_model(ModelChange(model_name="a", config=config("a")))
    run.settle()
    for path in file.parent.iterdir():
        path.unlink(missing_ok=True)
    file.write_bytes(b"\x00not a database" * 1000)
    run.writer.save_event(event(1))
    until(lambda: not run.writer.state.is_available)
    assert "file is not a database" in run.writer.state.last_error
    file.rename(file.with_suffix(".broken"))
    until(lambda: run.writer.state.is_available)
    run.end()
    assert events_in(url) == ["m-1"]


def test_a_full_disk(url: str) -> None:
    said = python(FULL_DISK, url)
    assert "disk" in said
    assert events_in(url) == [f"m-{number}" for number in range(3000)]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_folder_that_cannot_be_written(is_there: bool) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own are closed to other users
        folder = Path(name)
        file = folder / "registry.db"
        if is_there:
            storage = SQLAlchemyStorage(f"sqlite:///{file}")
            storage.open()
            storage.close()
            file.chmod(0o444)
        folder.chmod(0o555)
        said = python(READ_ONLY, f"sqlite:///{file}")
        assert "registry.db" in said or "readonly" in said
        folder.chmod(0o755)


def test_a_database_that_never_comes_costs_bounded_memory() -> None:
    run = Run("sqlite:////proc/nowhere/registry.db").begin()
    assert run.loaded[0].models == []
    until(lambda: not run.writer.state.is_available)
    for number in range(EVENTS_WAITING + 500):
        run.writer.save_event(event(number))
        run.writer.save_model(ModelChange(model_name="a", config=config("a"), replicas=number))
    state = run.writer.state
    assert state.dropped_events == 500
    assert state.waiting > EVENTS_WAITING
    assert not run.writer.close(60)


def test_sums_wait_while_the_database_is_away(
    url: str, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither lost nor counted twice, and a question meanwhile is answered by the reason."""
    monkeypatch.setattr("smmf_core.store.database.BUSY_S", 0.05)
    run = Run(url).begin()
    run.writer.add_usage({TODAY: Usage(requests=1)})
    run.settle()
    other.execute("BEGIN IMMEDIATE")
    for _ in range(50):
        run.writer.add_usage({TODAY: Usage(requests=1, prompt=2)})
    until(lambda: not run.writer.state.is_available)
    with pytest.raises(StoreError, match="database is locked"):
        run.writer.read_usage(Asked())
    other.execute("ROLLBACK")
    run.settle()
    (row,) = run.writer.read_usage(Asked())
    assert (row["requests"], row["prompt"]) == (51, 100)
    run.end()


def test_sums_of_a_day_survive_their_file(file: Path, url: str) -> None:
    run = Run(url).begin()
    run.writer.add_usage({TODAY: Usage(requests=7)})
    run.settle()
    for path in file.parent.iterdir():
        path.unlink(missing_ok=True)
    run.writer.add_usage({TODAY: Usage(requests=1)})
    run.settle()
    (row,) = run.writer.read_usage(Asked())
    assert row["requests"] == 8
    run.end()


def test_sums_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smmf_core.store.outbox.USAGE_WAITING", 10)
    outbox = Outbox()
    for number in range(1000):
        outbox.put_usage({UsageKey("2026-01-01", "a", f"m-{number}"): Usage(requests=1)})
    taken = outbox.take_usage()
    assert len(taken) == 11
    assert sum(usage.requests for usage in taken.values()) == 1000
    assert taken[UsageKey("2026-01-01", "a", "")].requests == 990
    assert outbox.take_usage() == {}
