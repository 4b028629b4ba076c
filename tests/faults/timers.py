"""The timers of a run, from which deadlines are computed: shortened by default, those of production with FULL=1.

Leaves out: the processes that keep them (`tests.integration.worker.fleet`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from common.config import Settings

STARTUP_SECONDS = 15.0
"""Seconds to start a Python process on a busy machine; added to the bounds of the specification, and not doubled."""


@dataclass(frozen=True)
class Timers:
    """Timers in seconds, named like the settings; the defaults are those of production."""

    lease_seconds: float = 60.0
    lease_renew_seconds: float = 10.0
    trainer_pause_seconds: float = 40.0
    heartbeat_seconds: float = 10.0
    reaper_seconds: float = 5.0
    quarantine_seconds: float = 15.0
    reaper_contact_seconds: float = 20.0
    outbox_seconds: float = 15.0
    desired_state_poll_seconds: float = 2.0
    stop_grace_seconds: float = 60.0
    kill_grace_seconds: float = 30.0
    drain_seconds: float = 60.0

    @property
    def scale(self) -> float:
        """Ratio to the timers of production."""
        return self.lease_seconds / 60.0

    @property
    def takeover(self) -> float:
        """Bound from kill -9 of a worker to the first step on another one: 95 s in production, scaled."""
        return 95.0 * self.scale

    @property
    def after_lease(self) -> float:
        """Most seconds from the last renewal until the reaper has requeued or ended the job."""
        return self.lease_seconds + self.quarantine_seconds + 2 * self.reaper_seconds

    @property
    def stop_ladder(self) -> float:
        """Most seconds from a stop request to SIGKILL."""
        return self.desired_state_poll_seconds + self.stop_grace_seconds + self.kill_grace_seconds

    @property
    def patience(self) -> float:
        """Seconds that a test waits for events without a specified bound: an expired lease, a stop, a start."""
        return 2 * (self.after_lease + self.stop_ladder) + self.outbox_seconds + 2 * STARTUP_SECONDS

    def environment(self) -> dict[str, str]:
        """Return the environment variables for the processes."""
        return {f"TIDAL_{field.name.upper()}": str(getattr(self, field.name)) for field in fields(self)}

    def applied(self, settings: Settings) -> Settings:
        """Return `settings` with these timers, for code that runs in the test."""
        return settings.model_copy(update={field.name: getattr(self, field.name) for field in fields(self)})


REAL = Timers()
SHORT = Timers(
    lease_seconds=3.0,
    lease_renew_seconds=0.5,
    trainer_pause_seconds=2.0,
    heartbeat_seconds=0.5,
    reaper_seconds=0.3,
    quarantine_seconds=0.5,
    reaper_contact_seconds=0.5,
    outbox_seconds=1.0,
    desired_state_poll_seconds=0.3,
    stop_grace_seconds=2.0,
    kill_grace_seconds=1.0,
    drain_seconds=5.0,
)
