"""What fails again and again is tried ever more rarely, and what has succeeded starts anew."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from common.backoff import Backoff, doubled


def test_delays_double_up_to_the_longest_and_begin_anew_after_a_success() -> None:
    backoff = Backoff(0.2, 5.0)
    assert [backoff.next() for _ in range(7)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert backoff.failures == 7
    backoff.reset()
    assert backoff.failures == 0
    assert backoff.next() == 0.2


@given(st.floats(0.001, 60.0), st.floats(0.001, 3600.0), st.integers(-5, 10**9))
def test_no_delay_is_longer_than_the_longest_however_often_something_failed(
    first: float, longest: float, times: int
) -> None:
    delays = [doubled(first, longest, count) for count in range(times, times + 3)]
    assert all(0 < delay <= longest for delay in delays)
    assert all(one <= next_one for one, next_one in pairwise(delays))
