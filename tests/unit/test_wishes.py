"""What a next Controller takes over from `models.json`, and what not."""

from __future__ import annotations

from pathlib import Path

import msgspec
from controller_rig import model

from smmf_core.config import RawConfig
from smmf_core.controller import wishes
from smmf_core.registry import LiveRegistry

TABLE = {"model": {"name": "late", "backend": "echo"}, "engine": {"tokens": 3}}


def written(folder: Path) -> None:
    """By a Controller whose operator scaled, stopped, pinned, added and pointed."""
    registry = LiveRegistry()
    first = registry.add(model("a"), 1)
    first.target, first.is_scaled, first.is_stopped, first.is_pinned = 3, True, True, True
    first.load_s, first.capabilities = 2.5, ["chat"]
    registry.add(model("gone"), 1).is_removed = True
    late = registry.add(model("late"), 1)
    late.is_runtime = True
    registry.point_alias("nick", late)
    wishes.save(folder, registry, {"late": RawConfig(TABLE, "given.toml")})


def test_wishes_facts_aliases_and_runtime_models_come_back(tmp_path: Path) -> None:
    written(tmp_path)
    found = wishes.load(tmp_path)
    assert [wish.name for wish in found.models] == ["a", "late"]
    registry, raws = LiveRegistry({"a": 0, "late": 2}), {}
    again = registry.add(model("a"), 1)
    wishes.restore(registry, found, raws)
    assert (again.target, again.is_scaled, again.is_stopped, again.is_pinned) == (3, *[True] * 3)
    assert (again.load_s, again.capabilities) == (2.5, ["chat"])
    late = registry.find("nick")
    assert (late.name, late.index, late.is_runtime) == ("late", 2, True)
    assert late.config.engine == {"tokens": 3}
    assert raws["late"].table == TABLE


def test_a_file_that_changed_meanwhile_wins(tmp_path: Path) -> None:
    written(tmp_path)
    registry = LiveRegistry()
    again = registry.add(msgspec.structs.replace(model("a"), engine={"tokens": 9}), 1)
    wishes.restore(registry, wishes.load(tmp_path), {})
    assert (again.target, again.is_stopped, again.load_s) == (1, False, 0.0)


def test_a_file_of_another_time_is_no_file(tmp_path: Path) -> None:
    assert wishes.load(tmp_path).models == []
    (tmp_path / wishes.FILE).write_text('{"models": 7}')
    assert wishes.load(tmp_path).models == []
    wishes.forget(tmp_path)
    wishes.forget(tmp_path)
    wishes.save(tmp_path / "nowhere", LiveRegistry(), {})


def test_only_its_user_may_read_it(tmp_path: Path) -> None:
    written(tmp_path)
    assert (tmp_path / wishes.FILE).stat().st_mode & 0o077 == 0
