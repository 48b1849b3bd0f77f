"""Stages: the same items with and without threads, nobody waits for ever, and times are counted in constant memory."""

import threading
import time

import pytest

from lib.predict import StageTimes, timed
from lib.predict.stages import REMEMBERED, overlapped


def threads() -> int:
    return sum(thread.name == "overlapped" for thread in threading.enumerate())


def test_items_come_in_their_order_and_the_thread_ends():
    assert list(overlapped(iter(range(500)), depth=3)) == list(range(500)) and threads() == 0
    assert list(overlapped([])) == []
    assert list(overlapped(overlapped(overlapped(range(50))))) == list(range(50)) and threads() == 0


@pytest.mark.parametrize("depth", [1, 4])
def test_it_works_ahead_but_not_far(depth):
    made = []
    ahead = overlapped((made.append(i) or i for i in range(100)), depth)
    assert next(ahead) == 0
    time.sleep(0.3)
    # those in the queue, and the one that waits in front of it
    assert len(made) == 1 + depth + 1
    ahead.close()
    assert threads() == 0 and len(made) < 100


def test_an_error_comes_behind_the_items_before_it():
    def failing():
        yield from range(3)
        raise OSError("the disk has gone")

    got = []
    with pytest.raises(OSError, match="the disk has gone"):
        for item in overlapped(overlapped(failing())):
            got += [item]
    assert got == [0, 1, 2] and threads() == 0


def test_leaving_early_closes_everything_in_its_own_thread():
    closed = []

    def source():
        try:
            yield from range(1000)
        finally:
            closed.append(threading.current_thread().name)

    for item in (chain := overlapped(overlapped(source()))):
        if item == 5:
            break
    chain.close()
    assert closed == ["overlapped"] and threads() == 0
    overlapped(source()).close()  # never begun: nothing to end
    assert threads() == 0


def test_times_are_counted_per_frame_and_forgotten_in_time():
    times = StageTimes()
    assert times.fps == 0 and times.median == {} and "0 frames" in times.table()
    times.add({"write": 0.5})
    assert "1 frame in" in times.table()
    times = StageTimes()
    for i in range(REMEMBERED + 1000):
        times.add({"write": 0.5, "network": 0.001 if i < 1000 else 0.003, "read": 0.002})
    assert list(times.mean) == ["read", "network", "write"]  # in the order of the work
    assert times.mean["network"] == pytest.approx((0.001 + 0.003 * 2) / 3) and times.median["network"] == 0.003
    assert times.frames == REMEMBERED + 1000 and times.fps > 0 and times.latest(1)["read"] == 0.002
    row = times.table().splitlines()[2].split()
    assert row == ["network", "3.00", "2.33", "428.6"]


def test_a_stage_in_two_pieces_is_added_up_and_counted_when_it_fails():
    seconds = {}
    for _ in range(2):
        with timed(seconds, "draw"):
            time.sleep(0.01)
    assert seconds["draw"] >= 0.02
    with pytest.raises(ValueError, match="x"), timed(seconds, "write"):
        raise ValueError("x")
    assert "write" in seconds
