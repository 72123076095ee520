"""The Controller's children: Routers and replicas' slots, by key, by name and by model.

Pure. Owns the numbers of Workers and the names of replicas; must not change a child's state.
"""

from __future__ import annotations

from collections.abc import Iterator

from smmf_core.control_messages import RouterReport
from smmf_core.errors import ControlError
from smmf_core.lifecycle import STOPPED, Child
from smmf_core.registry import Model

ROUTER, WORKER = "router", "worker"
Key = tuple[str, int]


class Table:
    """A Worker's slot is made when it is first needed, and kept: its number and name are stable.

    `ids` are the numbers that a former Controller gave to replicas.
    """

    def __init__(self) -> None:
        self.children: dict[Key, Child] = {}
        self._of_model: dict[int, list[Child]] = {}
        self._names: dict[str, Child] = {}
        self._ids: dict[str, int] = {}
        self._next_id = 0

    def remember_ids(self, ids: dict[str, int]) -> None:
        self._ids = dict(ids)
        self._next_id = max(ids.values(), default=-1) + 1

    def add(self, child: Child) -> Child:
        self.children[child.key] = child
        if child.role == WORKER:
            self._of_model.setdefault(child.model, []).append(child)
            self._names[child.name] = child
            self._ids[child.name] = child.id
            self._next_id = max(self._next_id, child.id + 1)
        return child

    def forget(self, child: Child) -> None:
        del self.children[child.key]
        if child.role == WORKER:
            self._of_model[child.model].remove(child)
            if self._names.get(child.name) is child:
                del self._names[child.name]
                self._ids.pop(child.name, None)  # a later one of that name is another

    def workers(self) -> Iterator[Child]:
        return (child for child in self.children.values() if child.role == WORKER)

    def routers(self) -> Iterator[Child]:
        return (child for child in self.children.values() if child.role == ROUTER)

    def replicas(self, model: int) -> list[Child]:
        """All slots of a model, by its index; also those that do not run."""
        return self._of_model.setdefault(model, [])

    def in_flight(self) -> dict[int, int]:
        """Requests that Routers have open, by Worker; those with none are missing."""
        counts: dict[int, int] = {}
        for router in self.routers():
            if isinstance(router.report, RouterReport):
                for worker, count in router.report.workers:
                    if count:
                        counts[worker] = counts.get(worker, 0) + count
        return counts

    def find(self, name: str) -> Child:
        """A replica by its name. Raises ControlError for an unknown one."""
        found = self._names.get(name)
        if found is None:
            raise ControlError(f"no instance named {name}")
        return found

    def free_slot(self, model: Model) -> Child:
        """The one with the smallest number that does not run and was not stopped by itself."""
        number = 0
        while not self._is_free(f"{model.name}-{number}", model):
            number += 1
        return self.slot(model, number)

    def _is_free(self, name: str, model: Model) -> bool:
        """A former model of that name may still have it, for as long as it drains."""
        found = self._names.get(name)
        if found is None:
            return True
        return found.model == model.index and found.state == STOPPED and not found.is_stopped

    def slot(self, model: Model, number: int) -> Child:
        name = f"{model.name}-{number}"
        found = self._names.get(name)
        if found is not None and found.model == model.index:
            return found
        worker = self._ids.get(name)
        if worker is None or (WORKER, worker) in self.children:
            worker = self._next_id
        return self.add(Child(WORKER, worker, name, model.index, wanted=False))
