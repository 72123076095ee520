"""Which device a model's next replica goes to, and who makes room for it there.

Pure. Owns the arithmetic of memory budgets, the choice of whom to evict, and the order and length
of turns when models that do not fit together are all wanted; must not know processes: the
Controller carries the answers out, and asks again whenever something has changed (a process is
really gone, a newer measurement of free memory, a model fell idle, a second has passed).

How a Controller uses it:

1. Models that requests wait for and nobody loads are Wants. `order` tells who comes first.
2. `plan` for each in that order. Fits: load it there now. Evict: drain those, without a time limit
   (their open requests finish, new ones wait in the Router); keep the want as a Holding with state
   RESERVED on the devices of the answer, and ask again until it fits. Wait: ask again later; with
   devices, keep it RESERVED there too. Never: nothing that happens by itself will help; the reason
   names what to turn.
3. What drains counts until its process is gone, and even then the measured free memory of the
   device must have come back.

Turns. Only what is idle is evicted, so a model that is never idle would keep others out for ever,
and swapping for each request would only load. A busy model gives way when it has served for a turn
and the other's oldest request has waited for one; then it drains as above, no request is cut short.
`turn_s` makes a turn some times as long as a load, so that loading takes a bounded share of the
time however many clients pick models at random, and shorter where the wait limit demands it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

RESERVED = "reserved"  # has its place, waits until it is free
LOADING = "loading"
READY = "ready"
DRAINING = "draining"

CPU = "cpu"
CUDA = "cuda"
GIB = 2**30
RECOVERY_S = 5.0  # so long after a process ended its memory may come back (Ollama waits as long)
TURN_LOADS = 4  # a turn is so many loads long: at most a fifth of the time goes into loading
MIN_TURN_S = (
    2.0  # Routers report once a second: a shorter turn would be over before it shows as idle
)

Policy = Literal["lru", "cheapest"]


@dataclass(frozen=True, slots=True)
class Device:
    """One pool of memory that models share: "cpu" (RAM), "cuda:0" ..."""

    name: str
    budget_bytes: int  # what models may take of it, together
    free_bytes: int | None = None  # really free, as last measured; None: not known, not checked
    is_recovering: bool = False  # a process on it ended less than RECOVERY_S ago


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """An instance that has memory, or the promise of some."""

    instance: str
    model: int
    devices: tuple[str, ...]
    need_bytes: int  # on all its devices together; 0: not known, counts as nothing
    measured_bytes: int = 0  # what its process takes now, likewise; 0: not known
    state: str = READY
    is_busy: bool = False  # runs something, or its model has requests waiting
    is_pinned: bool = False
    last_used: float = 0.0
    ready_at: float = 0.0  # of READY ones: when its turn began
    load_s: float = 0.0  # how long its loading took; 0: not known

    @property
    def is_idle(self) -> bool:
        return self.state == READY and not self.is_busy and not self.is_pinned


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """An instance that shall be loaded."""

    instance: str
    model: int
    need_bytes: int  # on all its devices together; 0: not known, fits everywhere
    device: str = CPU  # "cpu", "cuda" (any), "cuda:1" (that one, and more if `gpus` says so)
    gpus: int = 1  # devices of one replica; of "cpu" always one
    may_evict: bool = True  # False: a replica more, or at the start: takes only what is free
    waiting: int = 0  # requests
    waited_s: float = 0.0  # the oldest of them
    load_s: float = 0.0  # as remembered; 0: not known


@dataclass(frozen=True, slots=True)
class Fits:
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Evict:
    instances: tuple[str, ...]
    devices: tuple[str, ...]
    reason: str  # for the event and the log
    is_turn: bool = False  # they are busy, and had their turn


@dataclass(frozen=True, slots=True)
class Wait:
    reason: str
    devices: tuple[str, ...] = ()  # where it will fit once what drains there is gone; (): unknown
    is_final: bool = False  # it takes somebody's word, or another program's end


@dataclass(frozen=True, slots=True)
class Never:
    reason: str


Plan = Fits | Evict | Wait | Never


def order(wants: Iterable[Want]) -> list[Want]:
    """Who is loaded next: most waiting times longest wait. Many waiters make a load worth its time
    (fewest loads); a lone one's product grows until it is the greatest (nobody starves)."""
    return sorted(wants, key=lambda want: -(want.waiting or 1) * (want.waited_s + 1))


def turn_s(load_s: float, rivals: int, wait_limit_s: float) -> float:
    """How long a busy model serves before it gives way. `rivals`: models that wait for a place.

    1. TURN_LOADS loads.
    2. But so short that each rival comes before its requests have waited for too long.
    3. Never less than one load, nor than MIN_TURN_S, whatever the wait limit.
    """
    wanted_s = TURN_LOADS * load_s  # 1
    if wait_limit_s > 0:
        wanted_s = min(wanted_s, wait_limit_s / (rivals + 1) - load_s)  # 2
    return max(wanted_s, load_s, MIN_TURN_S)  # 3


def plan(
    want: Want,
    devices: Sequence[Device],
    holdings: Iterable[Holding],
    now: float,
    policy: Policy = "lru",
    rivals: int = 1,
    wait_limit_s: float = 0.0,
) -> Plan:
    """Where it goes. The best answer that any group of its devices gives:

    1. It fits: the emptiest.
    2. It will fit when what drains is gone: wait there.
    3. It fits once idle, unpinned ones are evicted: the fewest, then the emptiest.
    4. It fits once busy ones that had their turn give way, likewise.
    5. It would fit, but for busy ones: wait.
    6. It would fit, but for pinned ones, its own model's or other programs: wait for help.
    7. It does not fit: never.
    """
    groups = _groups(want, devices)
    if not groups:
        return Never(_no_device(want, devices))
    others = [h for h in holdings if h.instance != want.instance]
    rooms = [_Room(want, group, others, policy) for group in groups]
    rooms.sort(key=lambda room: -room.emptiness)
    return min((room.answer(now, rivals, wait_limit_s) for room in rooms), key=_rank)


def clear(devices: Iterable[str], holdings: Iterable[Holding]) -> tuple[str, ...]:
    """All idle and unpinned ones there: who goes before the one retry after an out-of-memory."""
    names = set(devices)
    return tuple(h.instance for h in holdings if h.is_idle and not names.isdisjoint(h.devices))


def _rank(answer: Plan) -> tuple[int, int]:
    """By the rules of `plan`; the first of equals is the emptiest."""
    if isinstance(answer, Fits):
        return 1, 0
    if isinstance(answer, Evict):
        return (4 if answer.is_turn else 3), len(answer.instances)
    if isinstance(answer, Wait):
        return (2 if answer.devices else 6 if answer.is_final else 5), 0
    return 7, 0


def _groups(want: Want, devices: Sequence[Device]) -> list[tuple[Device, ...]]:
    """The sets of devices that could take it; Apple's GPU shares the RAM."""
    if not want.device.startswith(CUDA):
        return [(device,) for device in devices if device.name == CPU]
    gpus = [device for device in devices if device.name.startswith(CUDA)]
    groups = combinations(gpus, max(1, want.gpus))
    return [g for g in groups if want.device == CUDA or any(d.name == want.device for d in g)]


def _no_device(want: Want, devices: Sequence[Device]) -> str:
    names = [device.name for device in devices if device.name.startswith(CUDA)]
    if not names:
        return f'there is no GPU here for [deployment] device = "{want.device}" or gpus'
    if want.device != CUDA and want.device not in names:
        return f"there is no {want.device} here ([deployment] device), only {', '.join(names)}"
    return f"[deployment] gpus = {want.gpus}, but here are only {', '.join(names)}"


class _Room:
    """What a want finds in one group of devices. `gone` are instances that are thought away."""

    def __init__(
        self, want: Want, group: Sequence[Device], holdings: Iterable[Holding], policy: Policy
    ) -> None:
        self._want = want
        self._group = group
        self._names = tuple(device.name for device in group)
        self._share = math.ceil(want.need_bytes / len(group))
        self._held = [h for h in holdings if not set(h.devices).isdisjoint(self._names)]
        self._busy_models = {h.model for h in self._held if h.is_busy}
        self._policy = policy

    @property
    def emptiness(self) -> int:
        return min(self._room(device, frozenset()) for device in self._group)

    def answer(self, now: float, rivals: int, wait_limit_s: float) -> Plan:
        """By the rules of `plan`."""
        largest = min(self._group, key=lambda device: device.budget_bytes)
        if self._share > largest.budget_bytes:
            return Never(self._too_large(largest))
        leaving = frozenset(h.instance for h in self._held if h.state == DRAINING)
        if self._is_enough(frozenset()):
            return Fits(self._names)
        if self._is_enough(leaving):
            return Wait(f"{_names(leaving)} must end first", self._names)
        if any(d.is_recovering for d in self._group) and self._is_enough(leaving, measured=False):
            return Wait(f"the memory of {_names(self._names)} is not free again yet", self._names)
        if self._want.may_evict:
            evict = self._evict(leaving, now, rivals, wait_limit_s)
            if evict is not None:
                return evict
        return self._in_the_way(leaving)

    def _evict(
        self, leaving: frozenset[str], now: float, rivals: int, wait_limit_s: float
    ) -> Evict | None:
        others = (h for h in self._held if h.is_idle and h.model != self._want.model)
        idle = sorted(others, key=self._preference)
        victims = self._choose(idle, leaving)
        if victims:
            return Evict(victims, self._names, f"idle; {self._want.instance} needs the memory")
        if not self._want.waiting:
            return None
        served = [h for h in self._held if self._had_its_turn(h, now, rivals, wait_limit_s)]
        served.sort(key=lambda h: h.ready_at)
        victims = self._choose(idle + served, leaving)
        if not victims:
            return None
        reason = (
            f"had its turn; requests for {self._want.instance} wait for {self._want.waited_s:.0f} s"
        )
        return Evict(victims, self._names, reason, is_turn=True)

    def _had_its_turn(self, h: Holding, now: float, rivals: int, wait_limit_s: float) -> bool:
        if h.state != READY or h.is_pinned or not h.is_busy or h.model == self._want.model:
            return False
        turn = turn_s(max(h.load_s, self._want.load_s), rivals, wait_limit_s)
        return now - h.ready_at >= turn and self._want.waited_s >= turn

    def _preference(self, h: Holding) -> tuple[bool, float, float]:
        """Who goes first: a model that is idle as a whole before a replica of one that is not."""
        times = (h.last_used, h.load_s) if self._policy == "lru" else (h.load_s, h.last_used)
        return h.model in self._busy_models, *times

    def _choose(self, candidates: Sequence[Holding], leaving: frozenset[str]) -> tuple[str, ...]:
        """The first of them that make room, less those that need not go; () if all cannot."""
        gone = set(leaving)
        chosen = []
        for holding in candidates:
            chosen.append(holding.instance)
            gone.add(holding.instance)
            if self._is_enough(gone):
                break
        else:
            return ()
        for instance in chosen[::-1]:
            if self._is_enough(gone - {instance}):
                gone.remove(instance)
        return tuple(instance for instance in chosen if instance in gone)

    def _in_the_way(self, leaving: frozenset[str]) -> Plan:
        """Why it must wait."""
        staying = [h for h in self._held if h.instance not in leaving]
        pinned = {h.instance for h in staying if h.is_pinned}
        own = {h.instance for h in staying if h.model == self._want.model}
        movable = {h.instance for h in self._held} - pinned
        where = _names(self._names)
        if self._is_enough(movable - own):
            return Wait(f"no memory on {where}: {self._who(movable - own - leaving)}")
        if self._is_enough(movable):
            return Wait(f"no memory on {where} beside {_names(own)}", is_final=True)
        if self._is_enough(movable, measured=False):
            return Wait(f"other programs take too much of the memory of {where}", is_final=True)
        reason = (
            f"needs {gib(self._share)} on {where}, where pinned models ({_names(pinned)}) "
            "leave less: unpin one, or raise [memory] budget_gib"
        )
        return Wait(reason, is_final=True)

    def _who(self, instances: Iterable[str]) -> str:
        if not self._want.may_evict:
            return f"{_names(instances)} would have to go"
        return f"{_names(instances)} in use"

    def _too_large(self, device: Device) -> str:
        return (
            f"needs {gib(self._share)} on {device.name}, more than its budget of "
            f"{gib(device.budget_bytes)}: raise [memory] budget_gib, or say by [deployment] "
            "memory_gib what the model really takes"
        )

    def _is_enough(self, gone: Collection[str], measured: bool = True) -> bool:
        if not self._share:
            return True
        return all(self._room(device, gone, measured) >= self._share for device in self._group)

    def _room(self, device: Device, gone: Collection[str], measured: bool = True) -> int:
        """What the budget leaves, or what is really free less what others will still take."""
        held = [h for h in self._held if device.name in h.devices]
        staying = [h for h in held if h.instance not in gone]
        budgeted = device.budget_bytes - sum(_reserved(h) for h in staying)
        if device.free_bytes is None or not measured:
            return budgeted
        coming_back = sum(_taken(h) for h in held if h.instance in gone)
        return min(budgeted, device.free_bytes + coming_back - sum(_growth(h) for h in staying))


def _reserved(holding: Holding) -> int:
    """Per device."""
    return math.ceil(max(holding.need_bytes, holding.measured_bytes) / len(holding.devices))


def _taken(holding: Holding) -> int:
    """Per device: what it occupies now."""
    if holding.measured_bytes:
        return holding.measured_bytes // len(holding.devices)
    return 0 if holding.state in (RESERVED, LOADING) else _reserved(holding)


def _growth(holding: Holding) -> int:
    """Per device: what it was promised and has not taken yet."""
    return _reserved(holding) - _taken(holding)


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
