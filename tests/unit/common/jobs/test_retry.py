"""The retry budgets are independent of each other, a drain uses none, and their sizes equal the specification."""

from __future__ import annotations

import pytest

from common.jobs.retry import INFRASTRUCTURE, USER, Fault, RetryDecision, backoff, decide_retry


def verdict(fault: Fault, infra: int = 0, user: int = 0, *, max_infra: int = 3, max_user: int = 0) -> RetryDecision:
    return decide_retry(
        fault, infra_restarts=infra, user_failures=user, max_infra_restarts=max_infra, max_user_failures=max_user
    )


@pytest.mark.parametrize("fault", sorted(INFRASTRUCTURE))
def test_infrastructure_fails_at_the_third(fault: Fault) -> None:
    outcomes = [verdict(fault, infra=count) for count in range(3)]
    assert [outcome.retry for outcome in outcomes] == [True, True, False]
    assert [outcome.infra_restarts for outcome in outcomes] == [1, 2, 3]
    assert {outcome.user_failures for outcome in outcomes} == {0}


@pytest.mark.parametrize("fault", sorted(USER))
def test_user_errors_fail_at_once_by_default(fault: Fault) -> None:
    assert verdict(fault, infra=2) == RetryDecision(False, 2, 1)


def test_user_errors_may_be_given_a_budget() -> None:
    assert [verdict(Fault.USER_ERROR, user=count, max_user=2).retry for count in range(3)] == [True, True, False]


def test_a_training_that_diverged_is_not_tried_again_whatever_the_budget() -> None:
    assert verdict(Fault.DIVERGED, infra=1, max_user=5) == RetryDecision(False, 1, 1)


def test_a_drain_uses_no_budget() -> None:
    assert verdict(Fault.DRAIN, infra=2, user=5) == RetryDecision(True, 2, 5)


def test_every_fault_has_exactly_one_budget() -> None:
    assert set(Fault) == INFRASTRUCTURE | USER | {Fault.DRAIN, Fault.DIVERGED}
    assert not INFRASTRUCTURE & USER


def test_the_delay_grows_and_is_bounded() -> None:
    assert [backoff(count) for count in range(8)] == [0, 0, 5, 10, 20, 40, 60, 60]
