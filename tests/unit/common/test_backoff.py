"""Delays between retries grow with each failure and start again with the first delay after a success."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from common.backoff import Backoff, doubled


def test_delays_double_up_to_the_longest_and_start_again_after_a_success() -> None:
    backoff = Backoff(0.2, 5.0)
    assert [backoff.next() for _ in range(7)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert backoff.failures == 7
    backoff.reset()
    assert backoff.failures == 0
    assert backoff.next() == 0.2


@given(st.floats(0.001, 60.0), st.floats(0.001, 3600.0), st.integers(-5, 10**9))
def test_delays_never_shrink_and_never_exceed_the_longest(first: float, longest: float, failures: int) -> None:
    delays = [doubled(first, longest, count) for count in range(failures, failures + 3)]
    assert all(0 < delay <= longest for delay in delays)
    assert all(delay <= next_delay for delay, next_delay in pairwise(delays))
