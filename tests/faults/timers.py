"""The timers of a run: shortened by default, those of production with FULL=1; deadlines are computed from them.

Leaves out: the processes that keep them (`tests.integration.worker.fleet`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from common.config import Settings

STARTUP_SECONDS = 15.0
"""What starting a Python process may take on a busy machine; no promise, so it is added to promises, not doubled."""


@dataclass(frozen=True)
class Timers:
    """Seconds, named like the settings they become; the defaults are those of production."""

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
        """1 with the timers of production, less with shortened ones."""
        return self.lease_seconds / 60.0

    @property
    def takeover(self) -> float:
        """The promise after kill -9 of a worker: 95 s of production, scaled, until another one is at its first step."""
        return 95.0 * self.scale

    @property
    def after_lease(self) -> float:
        """From the last renewal until the reaper has judged, at the latest."""
        return self.lease_seconds + self.quarantine_seconds + 2 * self.reaper_seconds

    @property
    def stop_ladder(self) -> float:
        """From a wish to SIGKILL, at the latest."""
        return self.desired_state_poll_seconds + self.stop_grace_seconds + self.kill_grace_seconds

    @property
    def patience(self) -> float:
        """How long a test waits for what must come but has no promised time: a lapse, a ladder, a start."""
        return 2 * (self.after_lease + self.stop_ladder) + self.outbox_seconds + 2 * STARTUP_SECONDS

    def environment(self) -> dict[str, str]:
        """As the processes read them."""
        return {f"TIDAL_{field.name.upper()}": str(getattr(self, field.name)) for field in fields(self)}

    def applied(self, settings: Settings) -> Settings:
        """`settings` with these timers, for code that runs inside the test."""
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
