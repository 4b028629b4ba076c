"""The trainer has a handler for each type of job."""

from __future__ import annotations

from services.trainer.handlers import HANDLERS
from tidal_client.vocabulary import JobType


def test_each_type_of_job_has_a_handler() -> None:
    assert set(HANDLERS) == set(JobType)
