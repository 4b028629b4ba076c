"""The timers of a run of fault tests: shortened by default, those of production with FULL=1.

Deadlines are computed from the timers. `tests.integration.worker.workers` starts processes with these timers.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from common.config import Settings

STARTUP_SECONDS = 15.0
"""Time in seconds to start a Python process on a busy machine.

It is added to the doubled limits of the specification.
"""


@dataclass(frozen=True)
class Timers:
    """Timers in seconds. They are named like the settings; the defaults are those of production."""

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
        """Ratio of these timers to those of production: 1.0 in production, less if they are shortened."""
        return self.lease_seconds / 60.0

    @property
    def takeover(self) -> float:
        """Longest allowed time in seconds from kill -9 of a worker to the first step on another one.

        It is 95 s with the timers of production, and is scaled like the timers.
        """
        return 95.0 * self.scale

    @property
    def after_lease(self) -> float:
        """Longest time in seconds from the last renewal of a lease until the reaper has requeued or ended the job."""
        return self.lease_seconds + self.quarantine_seconds + 2 * self.reaper_seconds

    @property
    def stop_escalation(self) -> float:
        """Longest time in seconds from a stop request to SIGKILL."""
        return self.desired_state_poll_seconds + self.stop_grace_seconds + self.kill_grace_seconds

    @property
    def patience(self) -> float:
        """Longest time in seconds that tests wait for events for which the specification has no limit.

        It is enough for an expired lease, a stop and a start.
        """
        return 2 * (self.after_lease + self.stop_escalation) + self.outbox_seconds + 2 * STARTUP_SECONDS

    def environment(self) -> dict[str, str]:
        """Return the environment variables that set these timers in a process."""
        return {f"TIDAL_{field.name.upper()}": str(getattr(self, field.name)) for field in fields(self)}

    def applied(self, settings: Settings) -> Settings:
        """Return a copy of `settings` with these timers, for code that runs in the test process."""
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
