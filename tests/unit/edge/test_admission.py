"""Who may come in, on a clock of the test's."""

from __future__ import annotations

from typing import Any

from trademesh_edge.admission import Admission
from trademesh_edge.settings import EdgeSettings

FAR = "192.0.2.1"


class Visitor:
    """Stands for a connection: remembers whether it was cut."""

    def __init__(self, has_asked: bool = False, waits_for_us: bool = False) -> None:
        self.has_asked = has_asked
        self.waits_for_us = waits_for_us
        self.was_cut = False

    def cut(self) -> None:
        self.was_cut = True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def admission(clock: Clock | None = None, **settings: Any) -> Admission:
    return Admission(EdgeSettings(**settings), clock or Clock())


def test_an_address_has_so_many_sockets_and_gets_its_places_back() -> None:
    door = admission(edge_max_handshakes_per_s_per_address=100, edge_max_sockets_per_address=2)
    visitors = [Visitor() for _ in range(3)]
    assert [door.enter(one, FAR) is None for one in visitors] == [True, True, False]
    assert door.enter(Visitor(), "192.0.2.2") is None
    door.left(visitors[0])
    assert door.enter(visitors[2], FAR) is None


def test_an_address_has_so_many_handshakes_a_second() -> None:
    clock = Clock()
    door = admission(clock, edge_max_handshakes_per_s_per_address=2)
    assert [door.enter(Visitor(), FAR) is None for _ in range(3)] == [True, True, False]
    clock.now += 1.01
    assert door.enter(Visitor(), FAR) is None


def test_this_machine_and_trusted_proxies_have_no_limit_of_their_own() -> None:
    door = admission(edge_max_sockets_per_address=1, edge_max_handshakes_per_s_per_address=1, edge_trusted_proxies=f"192.0.2.9, {FAR}")
    for address in ("127.0.0.1", "::1", FAR):
        assert [door.enter(Visitor(), address) for _ in range(5)] == [None] * 5


def test_all_together_have_so_many_sockets_and_handshakes() -> None:
    clock = Clock()
    door = admission(clock, edge_max_sockets=3, edge_max_handshakes_per_s=2)
    assert [door.enter(Visitor(), "127.0.0.1") is None for _ in range(3)] == [True, True, False]
    clock.now += 1.01
    assert [door.enter(Visitor(), "127.0.0.1") is None for _ in range(2)] == [True, False]
    assert door.sockets == 3


def test_the_oldest_that_say_nothing_are_cut_and_never_one_that_has_asked() -> None:
    clock = Clock()
    door = admission(clock, edge_max_open_handshakes=3)
    silent, asked = Visitor(), Visitor(has_asked=True)
    others = [Visitor() for _ in range(3)]
    for one in (silent, asked, *others[:2]):
        door.knocked(one)
    assert not silent.was_cut, "nobody is cut within half a second"
    clock.now += 0.6
    door.knocked(others[2])
    assert silent.was_cut
    assert not asked.was_cut
    assert not any(one.was_cut for one in others)
    assert door.knocking == 3


def test_who_waits_for_a_busy_edge_is_not_cut() -> None:
    clock = Clock()
    door = admission(clock, edge_max_open_handshakes=3)
    waiting, silent = [Visitor(waits_for_us=True) for _ in range(4)], Visitor()
    for one in (*waiting, silent):
        door.knocked(one)
    clock.now += 0.6
    door.knocked(Visitor())
    assert not any(one.was_cut for one in waiting)
    for one in (*(Visitor() for _ in range(3)), *(Visitor(waits_for_us=True) for _ in range(20))):
        door.knocked(one)
    assert door.knocking <= 12, "a flood that speaks is one all the same"


def test_a_flood_is_cut_at_once() -> None:
    door = admission(edge_max_open_handshakes=10)
    flood = [Visitor() for _ in range(100)]
    for one in flood:
        door.knocked(one)
    assert door.knocking <= 40
    assert sum(one.was_cut for one in flood) >= 60


def test_who_has_left_holds_nothing() -> None:
    door = admission()
    for _ in range(10):
        one = Visitor()
        door.knocked(one)
        door.answered(one)
        assert door.enter(one, "127.0.0.1") is None
        door.left(one)
        door.left(one)
    assert (door.sockets, door.knocking) == (0, 0)
    assert not door._per_address
