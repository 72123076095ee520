"""What the operator said of models is known at the next start, before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import msgspec
from controller_rig import Rig, model

from smmf_core.config import ModelConfig
from smmf_core.controller.words import FILE, Words
from smmf_core.registry import LiveRegistry


def registry_of(*configs: ModelConfig) -> LiveRegistry:
    registry = LiveRegistry()
    for config in configs:
        registry.add(config, 1)
    return registry


def said(folder: Path) -> None:
    """By one run: a stopped, b scaled to 3, c as its file has it."""
    registry = registry_of(model("a"), model("b"), model("c"))
    registry.find("a").is_stopped = True
    scaled = registry.find("b")
    scaled.target, scaled.is_scaled = 3, True
    Words(folder).keep(registry)


def test_what_was_stopped_is_not_started_and_counts_hold(tmp_path: Path) -> None:
    said(tmp_path)
    rig = Rig([model("a"), model("b"), model("new")])
    Words(tmp_path).apply(rig.core.registry)
    rig.core.start(0.0)
    names = [entry[1] for entry in rig.take("spawn")]
    assert names == ["router-0", "b-0", "b-1", "b-2", "new-0"]
    assert rig.core.status_of(rig.core.registry.find("a")).reason == "stopped by the operator"


def test_a_number_is_of_its_config_only(tmp_path: Path) -> None:
    said(tmp_path)
    changed = msgspec.structs.replace(model("b"), engine={"tokens": 9})
    registry = registry_of(changed)
    Words(tmp_path).apply(registry)
    assert (registry.find("b").target, registry.find("b").is_scaled) == (1, False)


def test_what_was_started_again_is_forgotten(tmp_path: Path) -> None:
    said(tmp_path)
    words, registry = Words(tmp_path), registry_of(model("a"))
    words.apply(registry)
    registry.find("a").is_stopped = False
    words.keep(registry)
    again = registry_of(model("a"))
    Words(tmp_path).apply(again)
    assert not again.find("a").is_stopped


def test_a_file_that_cannot_be_read_or_written_says_nothing(tmp_path: Path) -> None:
    registry = registry_of(model("a"))
    (tmp_path / FILE).write_text('{"a": 7}')
    Words(tmp_path).apply(registry)
    assert not registry.find("a").is_stopped
    registry.find("a").is_stopped = True
    (tmp_path / "taken").write_text("")
    Words(tmp_path / "taken").keep(registry)


def test_only_its_user_may_read_it_and_nothing_is_written_without_a_word(tmp_path: Path) -> None:
    Words(tmp_path).keep(registry_of(model("a")))
    assert not (tmp_path / FILE).exists()
    said(tmp_path)
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0
