"""The registry's store on SQLite: its rows, its Python API, its thread."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from key_store_suite import KeyStorageSuite, KeyWriterSuite
from store_suite import RegistrySuite, StorageSuite, WriterSuite

from smmf_core.config import ServerConfig
from smmf_core.store.first_look import look
from smmf_core.store.location import registry_url
from smmf_core.store.records import Stored, StoreError
from smmf_core.store.storage import SQLAlchemyStorage


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'state' / 'registry.db'}"


class TestStorage(StorageSuite):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'registry.db'}"


class TestRegistry(RegistrySuite):
    pass


class TestKeyStorage(KeyStorageSuite):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'registry.db'}"


class TestKeyWriter(KeyWriterSuite):
    pass


class TestWriter(WriterSuite):
    pass


def test_the_default_file_is_its_users_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    storage = SQLAlchemyStorage(registry_url(ServerConfig()))
    storage.open()
    storage.put_aliases({"a": "b"})
    folder = tmp_path / "state" / "smmf" / "default"
    assert folder.stat().st_mode & 0o777 == 0o700
    files = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}
    assert set(files.values()) == {0o600}
    assert "registry.db" in files
    storage.close()


def test_the_default_is_under_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/ann")
    config = ServerConfig()
    config.server.name = "second"
    assert registry_url(config) == "sqlite:////home/ann/.local/state/smmf/second/registry.db"
    config.registry.url = "postgresql://db/models"
    assert registry_url(config) == "postgresql://db/models"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("registry.db", r"\[registry\] url is not a URL such as sqlite:"),
        ("mysql://host/db", "mysql is not supported; there are sqlite, postgresql"),
        ("sqlite:////proc/nowhere/registry.db", "/proc/nowhere"),
    ],
)
def test_a_url_that_cannot_be(url: str, said: str) -> None:
    with pytest.raises(StoreError, match=said):
        SQLAlchemyStorage(url).open()


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "registry.db"
    file.write_bytes(b"important notes" * 1000)
    with pytest.raises(StoreError, match="file is not a database"):
        SQLAlchemyStorage(f"sqlite:///{file}").open()
    assert file.read_bytes() == b"important notes" * 1000


def test_starting_does_not_pay_for_the_database() -> None:
    """Whoever imports the writer has not imported SQLAlchemy: its thread does, later."""
    code = "import sys, smmf_core.store.writer, smmf_core.store.location; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "sqlalchemy" not in done.stdout.split()


def test_a_first_look_into_a_broken_schema_finds_nothing(url: str, tmp_path: Path) -> None:
    storage = SQLAlchemyStorage(url)
    storage.open()
    assert look(url, "default") == Stored()
    with closing(sqlite3.connect(tmp_path / "state" / "registry.db")) as connection, connection:
        connection.execute("DELETE FROM smmf_schema")
    assert look(url, "default") is None
    storage.close()


READ = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("SELECT alias FROM aliases").fetchall())
connection.close()
"""


def test_others_may_read_the_file_while_it_is_open_twice(url: str, tmp_path: Path) -> None:
    """Closing any descriptor of a file gives up all of a process's locks on it (POSIX): whoever
    reads it then would take the log of changes away, and later changes with it."""
    first, second = SQLAlchemyStorage(url), SQLAlchemyStorage(url)
    first.open()
    second.open()
    second.close()
    command = [sys.executable, "-c", READ, str(tmp_path / "state" / "registry.db")]
    assert subprocess.check_output(command) == b"[]\n"
    first.put_aliases({"a": "b"})
    assert subprocess.check_output(command) == b"[('a',)]\n"
    first.close()
