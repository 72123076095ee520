"""Which children there are, for the next Controller of this run: the rows of `children.json`.

Owns when that file is written: when something in it is different.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

from smmf_core.controller import process
from smmf_core.controller.core import ControllerCore
from smmf_core.controller.process import Process
from smmf_core.controller.run_dir import ChildRecord, RunDir
from smmf_core.controller.table import Key
from smmf_core.lifecycle import Child


class Roster:
    """`save` at the end of each turn."""

    def __init__(self, run_dir: RunDir) -> None:
        self._run_dir = run_dir
        self._saved: list[ChildRecord] = []
        self._started = process.start_time(os.getpid()) or 0

    def save(self, core: ControllerCore, processes: Mapping[Key, Process]) -> None:
        """A full disk or a folder that is gone cost adoption only."""
        own = ChildRecord(
            "controller", pid=os.getpid(), starttime=self._started, version=core.registry.version
        )
        children = core.children.values()
        records = [own, *(_record(core, child, processes.get(child.key)) for child in children)]
        if records != self._saved:
            self._saved = records
            with contextlib.suppress(OSError):
                self._run_dir.save(records)


def _record(core: ControllerCore, child: Child, alive: Process | None) -> ChildRecord:
    model = core.registry.by_index(child.model)
    return ChildRecord(
        role=child.role,
        id=child.id,
        name=child.name,
        incarnation=child.incarnation,
        pid=alive.pid if alive is not None else 0,
        starttime=alive.start_time if alive is not None else 0,
        model=model.name if model is not None else "",
        model_index=child.model,
        is_offline=child.is_offline,
        device=child.device,
        need_bytes=child.need_bytes,
    )
