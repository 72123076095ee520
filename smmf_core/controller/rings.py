"""Which Worker has a ring to which Router, as both sides have told or been told.

Pure. Owns the rule that a ring is of use only when both ends have it; must not make rings.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from smmf_core.control_messages import Detach, ToChild
from smmf_core.lifecycle import DRAINING, Child, Ring


class Effects(Protocol):
    """The part of core.Effects that rings need."""

    def send(self, child: Child, message: ToChild) -> None: ...
    def attach(self, worker: Child, router: Child, slots: int) -> None: ...


def shares(total: int, parts: int) -> list[int]:
    """Deal slots as evenly as possible, at least one each."""
    return [max(1, total // parts + (part < total % parts)) for part in range(parts)]


def ring_of(worker: Child, router: Child) -> Ring:
    return worker.id, worker.incarnation, router.id, router.incarnation


def connect(worker: Child, router: Child, is_new: bool, routers: int, effects: Effects) -> bool:
    """Give a pair its ring, unless both have it already; True when it was given.

    A ring that only one of them has is of no use: both forget it first. So they do when one of
    them is not `is_new`, since a Worker that still loads does not tell of the rings it was sent.
    """
    is_open = all(c.connected and c.wanted and c.is_alive for c in (worker, router))
    ring = ring_of(worker, router)
    if not is_open or DRAINING in (worker.state, router.state):
        return False
    if ring in worker.rings and ring in router.rings:
        return False
    if not is_new or ring in worker.rings or ring in router.rings:
        for child in (worker, router):
            effects.send(child, Detach(*ring))
    worker.rings.add(ring)
    router.rings.add(ring)
    effects.attach(worker, router, shares(worker.slots, routers)[router.id])
    return True


def forget(worker: Child, router: Child) -> None:
    ring = ring_of(worker, router)
    worker.rings.discard(ring)
    router.rings.discard(ring)


def drop_stale(child: Child, peers: Iterable[Child], effects: Effects) -> None:
    """Forget rings to incarnations that ended while no Controller watched."""
    living = {(peer.id, peer.incarnation) for peer in peers if peer.is_alive}
    for ring in list(child.rings):
        if _far_end(child, ring) not in living:
            child.rings.discard(ring)
            effects.send(child, Detach(*ring))


def tell_gone(child: Child, peers: Iterable[Child], effects: Effects) -> None:
    """`child` ended: its peers forget it."""
    for peer in peers:
        for ring in list(peer.rings):
            if _far_end(peer, ring) == (child.id, child.incarnation):
                peer.rings.discard(ring)
                effects.send(peer, Detach(*ring))


def _far_end(child: Child, ring: Ring) -> tuple[int, int]:
    return (ring[2], ring[3]) if child.role == "worker" else (ring[0], ring[1])
