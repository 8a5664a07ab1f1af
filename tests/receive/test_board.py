"""What workers count together."""

import os
import signal
from collections import Counter
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbound.receive import board
from inbound.receive.board import Board
from inbound.receive.rates import Rates

HERE, THERE = b"here", b"there..."


def test_connections_are_added_up_over_all_seats() -> None:
    one, two = (shared := Board(2)).seat(0), shared.seat(1)
    assert [one.arrive(), two.arrive(), two.arrive(), one.connections] == [1, 2, 3, 3]
    assert [one.settle(HERE), two.settle(HERE), two.settle(THERE)] == [1, 2, 1]
    two.depart()
    two.unsettle(HERE)
    assert [one.connections, one.settle(HERE)] == [2, 2]


def test_what_an_ended_worker_had_counted_is_cleared_and_nothing_else() -> None:
    one, two = (shared := Board(2)).seat(0), shared.seat(1)
    for seat in (one, one, two):
        seat.arrive()
        seat.settle(HERE)
    shared.clear(0)
    assert (two.connections, two.settle(HERE), shared.seat(0).settle(HERE)) == (1, 2, 3)


def test_a_worker_that_is_killed_leaves_its_counts_and_no_lock_behind() -> None:
    shared = Board(2)
    ready, say = os.pipe()
    child = os.fork()
    if not child:  # counts for ever
        seat = shared.seat(1)
        os.write(say, b"+")
        while True:
            seat.arrive()
            seat.settle(HERE)
            seat.use(HERE, 5.0)
    os.read(ready, 1)
    seat = shared.seat(0)
    while seat.connections < 1000:
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert seat.settle(HERE) >= 1000
    shared.clear(1)
    assert (seat.arrive(), seat.settle(HERE), seat.full_again(HERE)) == (1, 2, 5.0)
    os.close(ready)
    os.close(say)


def test_an_allowance_is_used_up_over_all_seats_and_outlasts_them() -> None:
    shared = Board(2)
    one, two = (Rates(3, shared.seat(number), clock=lambda: 1000.0) for number in range(2))
    assert [one.admits(HERE), two.admits(HERE), two.admits(HERE), one.admits(HERE), two.admits(THERE)] == [
        True, True, True, False, True
    ]  # fmt: skip
    shared.clear(1)
    assert not one.admits(HERE)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 40), st.booleans()), max_size=60))
def test_few_places_are_counted_exactly(steps: list[tuple[int, int, bool]]) -> None:
    """As one dictionary for all would; a place that shares one of its entries included."""
    shared = Board(2)
    seats = [shared.seat(0), shared.seat(1)]
    counts: Counter[tuple[int, int]] = Counter()
    for number, which, comes in steps:
        at = IPv4Address(which).packed
        if comes:
            counts[number, which] += 1
            assert seats[number].settle(at) == counts[0, which] + counts[1, which]
        elif counts[number, which]:
            counts[number, which] -= 1
            seats[number].unsettle(at)


@pytest.mark.parametrize("entries", [1, 2, 7, 64])
def test_a_board_that_is_too_small_counts_too_much_and_never_too_little(
    entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "ENTRIES", entries)
    seat = Board().seat(0)
    counts = [seat.settle(IPv4Address(number % 50).packed) for number in range(200)]
    assert all(count >= number // 50 + 1 for number, count in enumerate(counts))
    for number in range(200):
        seat.unsettle(IPv4Address(number % 50).packed)
    assert seat.settle(HERE) == 1


def test_ten_thousand_places_with_a_message_each_hold_up_no_other() -> None:
    rates = Rates(10, Board().seat(0), clock=lambda: 1000.0)
    assert all(rates.admits(IPv4Address(number).packed) for number in range(10_000))
    assert sum(rates.admits(HERE) for _ in range(10)) >= 9
