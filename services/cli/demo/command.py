"""`tidal demo`: the whole real system once, from nothing to three stories, in minutes on two CPU cores.

Starts the local stack (or uses the one that runs), pretrains a small model, trains its controller, compares, generates,
and stops what it started. Everything goes through the api, as any client would do it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.text import Text

from common.errors import TidalError, UnavailableError
from services.cli.commands.local import describe, launch, port_to_use, up_arguments, wait_until_ready
from services.cli.configuration import read_overrides
from services.cli.demo import report
from services.cli.demo.corpus import Corpus, choose_corpus
from services.cli.output import duration, err, out
from services.cli.processes import child_environment, last_lines
from services.cli.views.watch import watch
from tidal_client import Client, Job, LocalInstance, read_instance
from tidal_client.vocabulary import NEUTRAL_MODULATION, GatingMode, JobStatus

PROMPT = "Once upon a time"
STORY_TOKENS = 60
SEED = 7
LOG_LINES = 15
TAG = "demo"
STOP_SECONDS = 20.0
FLOWER_SECONDS = 20.0
"""It starts last and is long up by the end, but not on every machine."""


@dataclass
class Clock:
    """Wall time by phase."""

    times: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of the block for `name`."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.times[name] = self.times.get(name, 0.0) + time.monotonic() - started


def command(
    data: Annotated[
        Path | None, typer.Option("--data", help="Your own text: .txt, .jsonl or .parquet. [env: DATA for make demo]")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running afterwards.")] = False,
    port: Annotated[
        int | None, typer.Option("--port", help="Port of the API. [default: 4400, or any free one]")
    ] = None,
    lm_settings: Annotated[
        list[str] | None, typer.Option("--lm-set", help="A value of the language model's configuration: a.b=value.")
    ] = None,
    rl_settings: Annotated[
        list[str] | None, typer.Option("--rl-set", help="A value of the controller's configuration: a.b=value.")
    ] = None,
) -> None:
    """Show everything once: start, pretrain, train the controller, compare, generate, stop.

    Takes minutes on two CPU cores. Without --data it uses TinyStories if the hub answers, else the built-in stories.
    """
    clock = Clock()
    lm_values, rl_values = read_overrides(None, lm_settings or []), read_overrides(None, rl_settings or [])
    corpus = choose_corpus(data)
    out.print(Text.assemble(("Tidal", "bold"), " — a small model, a controller that steers it, three stories.\n"))
    try:
        with _stack(clock, keep=keep, port=port) as (instance, started), _client(instance) as client:
            if started:
                _cancel_leftovers(client)
            _run(client, instance, clock, corpus, lm_values, rl_values)
            _check_flower(instance)
    except KeyboardInterrupt:
        err.print("\nStopped.")
        raise typer.Exit(130) from None
    out.print(report.times_table(clock.times))
    if keep or not started:
        describe(instance)
        out.print("It goes on running; `tidal down` stops it.")
    else:
        out.print("Everything has stopped. With KEEP=1 (--keep) it stays: API docs, Flower and your own jobs.")


def _run(
    client: Client,
    instance: LocalInstance,
    clock: Clock,
    corpus: Corpus,
    lm_values: dict[str, Any],
    rl_values: dict[str, Any],
) -> None:
    with clock.phase("pretraining"):
        model = _pretrain(client, instance, corpus, lm_values)
    out.print(Text("      ").append_text(report.loss_line(*report.losses(client.metrics(model.experiment_id)))))

    _title(3, "Training the controller, then comparing it", "rl-training")
    with clock.phase("controller and ablation"):
        fields = {"rl_config_path": "demo/rl.yaml", "checkpoint": f"{model.experiment_id}/final"}
        controller = _train(client, "rl-training", "controller", rl_values, **fields)
    result = client.ablation(controller.experiment_id)
    out.print(report.ablation_table(result))
    for line in report.conclusions(result):
        out.print(f"      {line}", soft_wrap=True)

    _title(4, "Three stories, one prompt and one seed", "generate")
    policy = {"rl_checkpoint": f"{controller.experiment_id}/final"}
    with clock.phase("generation"):
        for mode, extra in (
            (GatingMode.NONE, {}),
            (GatingMode.FIXED, {"modulation": NEUTRAL_MODULATION}),
            (GatingMode.LEARNED, policy),
        ):
            reply = client.generate(
                f"{model.experiment_id}/final",
                PROMPT,
                max_tokens=STORY_TOKENS,
                gating_mode=mode,
                seed=SEED,
                **extra,
            )
            out.print(report.story(mode, PROMPT, reply))


def _cancel_leftovers(client: Client) -> None:
    """Cancel jobs of an interrupted demonstration, which would run first. The stack is new, so no user follows them."""
    for job in client.jobs(tag=TAG, limit=100):
        if not job.ended:
            client.cancel_job(job.id)


def _pretrain(client: Client, instance: LocalInstance, corpus: Corpus, values: dict[str, Any]) -> Job:
    """The finished pretraining job; the built-in stories take over when the hub breaks off."""
    _title(2, "Pretraining a language model", "lm-training")
    while True:
        out.print(f"      corpus: {corpus.description}", soft_wrap=True)
        data = {"source": corpus.place(Path(instance.data_dir)), **corpus.settings}
        config = {**values, "data": {**data, **values.get("data", {})}}
        try:
            return _train(client, "lm-training", "language model", config, config_path="demo/lm.yaml")
        except TidalError as error:
            replacement = corpus.replacement
            if replacement is None:
                raise
            err.print(f"      {error.message.splitlines()[0]}", style="yellow", soft_wrap=True)
            corpus = replacement


def _train(client: Client, job_type: str, label: str, config: dict[str, Any], **fields: Any) -> Job:
    """Submit and follow; UnavailableError with the last log lines unless it is completed."""
    job = client.submit_job(job_type, config=config, name=f"demo: {label}", tags=[TAG], **fields)
    ended = watch(client, job, label=f"      {label}", console=out).job
    if ended.status == JobStatus.COMPLETED:
        return ended
    reason = f"{ended.error.code}: {ended.error.message or ''}" if ended.error else f"it is {ended.status}"
    try:
        tail = [line.text for line in client.last_log_lines(job.id, LOG_LINES)]
    except TidalError:
        tail = []
    log = "\n".join(f"  {line}" for line in tail)
    raise UnavailableError(f"the job {job.id} ({job_type}) was not completed: {reason}" + (f"\n{log}" if log else ""))


@contextmanager
def _stack(clock: Clock, *, keep: bool, port: int | None) -> Iterator[tuple[LocalInstance, bool]]:
    """The local stack and whether it is ours: the one that runs, else our own, stopped at the end unless `keep`."""
    _title(1, "Starting PostgreSQL, Valkey, API, worker, generator, Flower", "up")
    running = read_instance()
    if running is not None and running.status == "ready":
        out.print(f"      found running at {running.api_url}")
        yield running, False
        return
    process: subprocess.Popen[bytes] | None = None
    completed = False
    try:
        with clock.phase("start"), err.status("      starting"):
            started = time.monotonic()
            process = launch(up_arguments(port_to_use(port), None, quiet=True, with_parent=not keep))
            instance = wait_until_ready(process)
        out.print(f"      ready in {duration(time.monotonic() - started)}")
        out.print(f"      API docs  {instance.api_url}/docs")
        out.print(f"      Flower    {instance.flower_url}  (user tidal, password {instance.flower_password})")
        yield instance, True
        completed = True
    finally:
        if process is not None and not (keep and completed):
            with clock.phase("stop"), err.status("      stopping"):
                _stop(process)


def _check_flower(instance: LocalInstance) -> None:
    """The address that was printed works. UnavailableError with Flower's last words."""
    deadline = time.monotonic() + FLOWER_SECONDS
    while True:
        try:
            if httpx.get(f"{instance.flower_url}/healthcheck", timeout=5, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            log = "\n".join(f"  {line}" for line in last_lines(Path(instance.logs_dir) / "flower.log", LOG_LINES))
            raise UnavailableError(f"Flower does not answer at {instance.flower_url}; its log ends with:\n{log}")
        time.sleep(0.5)


def _client(instance: LocalInstance) -> Client:
    return Client(instance.api_url, instance.token)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # takes the services with it, not the two servers
        process.wait()
        subprocess.run([sys.executable, "-m", "services.local", "down"], env=child_environment())


def _title(number: int, text: str, note: str) -> None:
    out.print(Text.assemble((f"[{number}/4] ", "bold cyan"), (text, "bold"), (f"  {note}", "dim")))
