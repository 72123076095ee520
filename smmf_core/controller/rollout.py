"""What to do next so that a model has the replicas that are wanted of it: one act at a time.

Pure; owns the rule of start, scale, stop and rolling replacement. Must not carry anything out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from smmf_core.lifecycle import FAILED, LOADING, READY, STARTING, STOPPED, Child
from smmf_core.registry import Model

START = "start"  # a slot that is wanted and does not run
MORE = "more"  # want one slot more
RETIRE = "retire"  # drain that one, and want it no longer
RENEW = "renew"  # end that one; a new process of the wanted generation follows in its slot
RETURN = "return"  # put it back into rotation: there is no other
ROLL_BACK = "roll back"  # the new generation cannot start: the old one is the wanted one again


class Act(NamedTuple):
    kind: str
    child: Child | None = None


def next_act(model: Model, slots: Sequence[Child], can_surge: Callable[[], bool]) -> Act | None:
    """None: nothing to do until something happens. `can_surge`: there is memory for one more.

    1. Nothing should run: retire what is wanted.
    2. Nobody is in rotation, but one that health took out of it could be: return it.
    3. A wanted slot does not run: start it.
    4. There are fewer than wanted: one more.
    5. There are more, the one that a replacement may add aside: retire the least useful.
    6. Some are of a former generation: replace them in turn (`_roll`).
    """
    count = wanted_count(model, slots)
    wanted = [child for child in slots if child.wanted]
    if not count:  # 1
        return Act(RETIRE, wanted[0]) if wanted else None
    if not any(child.is_online for child in slots):  # 2
        found = [c for c in wanted if c.state == READY and c.removed and not c.is_offline]
        if found:
            return Act(RETURN, found[0])
    stopped = [child for child in wanted if child.state == STOPPED]
    if stopped:  # 3
        return Act(START, stopped[0])
    if len(wanted) < count:  # 4
        return Act(MORE)
    old = [child for child in wanted if is_old(model, child)]
    if len(wanted) > count + bool(old):  # 5
        return Act(RETIRE, least_useful(wanted, model))
    return _roll(model, wanted, old, count, can_surge)  # 6


def _roll(
    model: Model, wanted: list[Child], old: list[Child], count: int, can_surge: Callable[[], bool]
) -> Act | None:
    """Replace former generations without a failed request.

    1. The new generation fails, and none of it serves; or nobody serves, and what others keep will
       not let it in: back to the former.
    2. None is left: done.
    3. An old one that nobody is served by: renew it in its slot.
    4. The one more finds no memory any more: go on without it.
    5. One is on its way, or failed while others of its generation serve: wait for it.
    6. There is one more than wanted, the new ones serve: retire an old one.
    7. There is memory for one more: add it.
    8. Else one at a time: renew an old one in its slot.
    """
    fresh = [child for child in wanted if child not in old]
    serves = any(child.is_online for child in fresh)
    fails = any(child.state == FAILED or child.is_delayed for child in fresh)
    is_shut_out = any(c.is_blocked for c in fresh) and not any(c.is_online for c in old)
    if model.former is not None and not serves and (fails or is_shut_out):  # 1
        return Act(ROLL_BACK)
    if not old:  # 2
        return None
    idle = [child for child in old if not child.is_online]
    if idle:  # 3
        return Act(RENEW, idle[0])
    stuck = [child for child in fresh if child.is_stuck]
    if stuck and len(wanted) > count:  # 4
        return Act(RETIRE, stuck[0])
    if any(child.state != READY and not child.is_stuck for child in fresh):  # 5
        return None
    if len(wanted) > count:  # 6
        return Act(RETIRE, old[0])
    if can_surge():  # 7
        return Act(MORE)
    return Act(RENEW, old[0])  # 8


def is_hopeless(child: Child) -> bool:
    """It will not come up soon."""
    return child.state == FAILED or child.is_delayed or child.is_blocked


def wanted_count(model: Model, slots: Sequence[Child]) -> int:
    """Replicas that should run: those that were stopped by themselves are not replaced."""
    return max(0, model.desired - sum(child.is_stopped for child in slots))


def is_old(model: Model, child: Child) -> bool:
    """It runs, not yet on its way out, what is no longer wanted."""
    return child.generation != model.generation and child.state in (STARTING, LOADING, READY)


def least_useful(wanted: list[Child], model: Model) -> Child:
    """Who goes when there are too many: the least ready, of them an old or unwell one, the last."""
    return max(
        wanted,
        key=lambda child: (
            not child.is_online,
            not child.is_alive,
            child.state != READY,
            is_old(model, child),
            bool(child.unwell),
            len(child.name),
            child.name,
        ),
    )
