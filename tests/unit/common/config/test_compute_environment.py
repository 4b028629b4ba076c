"""Processes that compute start with environment variables that reduce CPU time, unless the user has set them."""

from __future__ import annotations

from common.config.compute_environment import COMPUTE_ENVIRONMENT, with_compute_environment


def test_own_settings_win_and_the_rest_is_added() -> None:
    found = with_compute_environment({"OMP_WAIT_POLICY": "ACTIVE", "PATH": "/bin"})
    assert found == {**COMPUTE_ENVIRONMENT, "OMP_WAIT_POLICY": "ACTIVE", "PATH": "/bin"}
