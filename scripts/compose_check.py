"""Check that all containers of a running compose project are hardened, and that a job survives restarts of services.

`make compose-check` runs this script after `docker compose up -d --wait`. It needs Docker and the project's `.env`; the
variable COMPOSE replaces the command `docker compose`. The script submits one small training, restarts every service in
turn while the job runs, and prints one line per check. The exit status is 1 when a check fails. The script neither
builds nor starts the project. It checks which networks each container joins, but not these networks' firewall rules.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from common.errors import TidalError
from common.metrics.names import LOSS
from tidal_client import Client, Job

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = shlex.split(os.environ.get("COMPOSE", "docker compose"))
DATABASE, BROKER, PUBLISHED, OUTSIDE = "database", "broker", "published", "outside"
NETWORKS = {
    "postgres": {DATABASE},
    "redis": {BROKER},
    "api": {DATABASE, BROKER, PUBLISHED},
    "health": {DATABASE, BROKER},
    "worker": {DATABASE, BROKER, OUTSIDE},
    "generator": {BROKER},
    "flower": {BROKER, PUBLISHED},
}
"""The networks that each service may join. A service of the compose profile cpu replaces one of the profile gpu and may
join the same networks."""
LOG_STEPS = 5
CONFIG = {
    "model": {"name": "check", "d_model": 64, "num_layers": 2, "num_heads": 4, "ffn_dim": 256, "context_length": 64},
    "data": {"source": "builtin:stories"},
    "training": {
        "epochs": 1000,
        "max_steps": 1_000_000,
        "effective_batch_size": 4,
        "micro_batch_size": 4,
        "warmup_steps": 10,
        "log_every_steps": LOG_STEPS,
    },
    "evaluation": {"every_steps": 1000, "batch_size": 4, "max_batches": 2, "sample_tokens": 8},
    "checkpoint": {"every_seconds": 5.0, "keep_last": 2},
}
PATIENCE_SECONDS = 240.0
"""Maximum wait for progress of the job after a restart. A worker drains for up to 60 s, and a lost lease expires after
60 s."""


def main() -> int:
    """Run every check. Return 1 if a check failed, otherwise 0."""
    services = compose("ps", "--services", "--status", "running").split()
    failed = sum(not hardened(service) for service in services)
    failed += not survives_restarts(services)
    print("all checks passed" if not failed else f"{failed} checks failed")
    return 1 if failed else 0


def hardened(service: str) -> bool:
    """Check that a container runs as another user than root, without capabilities, with a read-only root file system,
    with limits, and only in its own networks."""
    container = compose("ps", "-q", service).strip()
    found = json.loads(run("docker", "inspect", container))[0]
    host = found["HostConfig"]
    # Process 1 is the service or its init process; healthchecks and `exec` run as other processes.
    status = compose("exec", "-T", service, "cat", "/proc/1/status")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    members = {name.rpartition("_")[2] for name in found["NetworkSettings"]["Networks"]}
    written = run(*COMPOSE, "exec", "-T", service, "sh", "-c", "touch /usr/probe", check=False)
    faults = [
        *(["it runs as root"] if facts["Uid"].split()[0] == "0" else []),
        *(["it has capabilities"] if int(facts["CapEff"], 16) or int(facts["CapBnd"], 16) else []),
        *([] if facts["NoNewPrivs"].strip() == "1" else ["it can gain privileges"]),
        *([] if host["ReadonlyRootfs"] and "Read-only" in written else ["its root file system can be written to"]),
        *([] if host["Memory"] and host["PidsLimit"] else ["memory or processes are not limited"]),
        *([] if members == NETWORKS[service.removesuffix("-cpu")] else [f"its networks are {sorted(members)}"]),
    ]
    memory = f"{host['Memory'] / 2**30:.1f} GiB, {host['PidsLimit']} processes, {', '.join(sorted(members))}"
    return report(f"{service} is hardened", not faults, "; ".join(faults) or memory)


def survives_restarts(services: list[str]) -> bool:
    """Check that a job continues after a restart of each service, completes, and has logged every step exactly once."""
    with client() as api:
        job = api.submit_job("lm-training", config=CONFIG, name="compose-check")
        moved(api, job, 20)
        for service in services:
            before = last_step(api, job)
            started = time.monotonic()
            compose("restart", service)
            try:
                step = moved(api, job, before + 20)
            except TimeoutError as error:
                return report(f"the job continues after a restart of {service}", False, str(error))
            report(
                f"the job continues after a restart of {service}",
                True,
                f"step {before} to {step} in {time.monotonic() - started:.0f} s",
            )
        wait(lambda: bool(api.signal_job(job.id, "complete")), "the signal is accepted")
        wait(lambda: api.job(job.id).ended, "the job ends")
        ended = api.job(job.id)
        logged = [point.step for point in api.metrics(job.experiment_id, keys=[LOSS]).series[LOSS]]
        expected = list(range(LOG_STEPS, logged[-1] + 1, LOG_STEPS))
        detail = (
            f"{ended.status}, attempt {ended.attempt}, {len(logged)} of {len(expected)} points to step {logged[-1]}"
        )
        complete = ended.status == "completed" and logged == expected
        return report("the job completes, and every step was logged exactly once", complete, detail)


def moved(api: Client, job: Job, target: int) -> int:
    """Wait until the job's newest step is at least `target`; return that step.

    Raises TimeoutError with the job's status.
    """
    wait(lambda: last_step(api, job) >= target, f"step {target} is reached", lambda: f"status {api.job(job.id).status}")
    return last_step(api, job)


def last_step(api: Client, job: Job) -> int:
    """Return the newest step of the job; 0 before the first step."""
    return api.job(job.id).progress.step or 0


def wait(condition: Callable[[], bool], what: str, detail: Callable[[], str] = str) -> None:
    """Evaluate `condition` once a second until it is true. Raises TimeoutError after PATIENCE_SECONDS.

    While the api restarts, the condition cannot be evaluated and counts as false.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except TidalError:
            pass  # the api, PostgreSQL or Redis restarts
        time.sleep(1)
    raise TimeoutError(f"still waiting after {PATIENCE_SECONDS:.0f} s until {what}; {detail()}")


def client() -> Client:
    """Return a client for the published port of the api, with the token from `.env`."""
    values = dict(line.split("=", 1) for line in (ROOT / ".env").read_text().splitlines() if "=" in line)
    address = compose("port", "api", "4400").strip()
    return Client(f"http://{address}", values["TIDAL_AUTH_TOKEN"])


def compose(*arguments: str) -> str:
    """Run a compose command and return its standard output."""
    return run(*COMPOSE, *arguments)


def run(*command: str, check: bool = True) -> str:
    """Run a command and return its standard output.

    Raises RuntimeError with the command's standard error if the command fails. With `check=False`, returns standard
    output followed by standard error, also if the command fails.
    """
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if check and done.returncode:
        raise RuntimeError(f"{shlex.join(command)}: {done.stderr.strip()}")
    return done.stdout if check else done.stdout + done.stderr


def report(what: str, ok: bool, detail: str) -> bool:
    """Print the result `ok` of the check that `what` describes, and return it."""
    print(f"{'ok  ' if ok else 'FAIL'} {what}: {detail}", flush=True)
    return ok


if __name__ == "__main__":
    sys.exit(main())
