"""`tidal demo`: demonstrates the whole system within minutes on two CPU cores.

It starts the local stack (or uses the running one), pretrains a small model, trains its controller, compares the
controller with its baselines, generates three stories, and stops the stack that it has started. The command uses the
public api like any other client.
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
from services.cli.commands.local import launch, port_to_use, print_addresses, up_arguments, wait_until_ready
from services.cli.configuration import read_overrides
from services.cli.demo import report
from services.cli.demo.corpus import DemoCorpus, choose_corpus
from services.cli.output import duration, err, out
from services.cli.processes import last_lines, stack_environment
from services.cli.views.watch import watch
from tidal_client import Client, Job, LocalInstance, read_instance
from tidal_client.vocabulary import NEUTRAL_MODULATION, GatingMode, JobStatus

PROMPT = "Once upon a time"
STORY_TOKENS = 90
SEED = 7
LOG_LINES = 15
TAG = "demo"
STOP_SECONDS = 20.0
FLOWER_SECONDS = 20.0
"""Longest wait for Flower in seconds. Flower starts last and, on a slow machine, may not be ready when the jobs end."""


@dataclass
class PhaseTimes:
    """Measures the wall time of the phases of the demonstration."""

    times: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the duration of the `with` block to the time of the phase `name`."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.times[name] = self.times.get(name, 0.0) + time.monotonic() - started


def command(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="File with the training text: .txt, .jsonl or .parquet. Default: TinyStories or the built-in "
            "stories. [make demo: DATA]",
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the local stack running after the demonstration.")] = False,
    port: Annotated[
        int | None, typer.Option("--port", help="Port of the API. [default: 4400, or any free port]")
    ] = None,
    lm_settings: Annotated[
        list[str] | None, typer.Option("--lm-set", help="Set a value of the language model's configuration: a.b=value.")
    ] = None,
    rl_settings: Annotated[
        list[str] | None, typer.Option("--rl-set", help="Set a value of the controller's configuration: a.b=value.")
    ] = None,
) -> None:
    """Demonstrate the whole system: start it, pretrain a model, train a controller, compare, generate, and stop.

    The demonstration takes minutes on two CPU cores. Without --data, it trains on TinyStories if the Hugging Face hub
    is reachable, and otherwise on the built-in stories.
    """
    phase_times = PhaseTimes()
    lm_values, rl_values = read_overrides(None, lm_settings or []), read_overrides(None, rl_settings or [])
    corpus = choose_corpus(data)
    out.print(
        Text.assemble(
            ("Tidal", "bold"),
            " — trains a small model and a controller that steers it, and generates three stories.\n",
        )
    )
    try:
        with _stack(phase_times, keep=keep, port=port) as (instance, started), _client(instance) as client:
            if started:
                _cancel_old_demo_jobs(client)
            _run(client, instance, phase_times, corpus, lm_values, rl_values)
            _check_flower(instance)
    except KeyboardInterrupt:
        err.print("\nStopped.")
        raise typer.Exit(130) from None
    out.print(report.times_table(phase_times.times))
    if keep or not started:
        print_addresses(instance)
        out.print("The stack is still running; `tidal down` stops it.")
    else:
        out.print("The stack has been stopped. With --keep (make demo KEEP=1) it keeps running for your own jobs.")


def _run(
    client: Client,
    instance: LocalInstance,
    phase_times: PhaseTimes,
    corpus: DemoCorpus,
    lm_values: dict[str, Any],
    rl_values: dict[str, Any],
) -> None:
    with phase_times.phase("pretraining"):
        model = _pretrain(client, instance, corpus, lm_values)
    metrics = client.metrics(model.experiment_id)
    losses = report.loss_line(*report.losses(metrics), report.bits_per_byte(metrics))
    out.print(Text("      ").append_text(losses))

    _title(3, "Training a controller, and comparing it with its baselines", "rl-training")
    with phase_times.phase("controller and ablation"):
        fields = {"rl_config_path": "demo/rl.yaml", "checkpoint": f"{model.experiment_id}/final"}
        controller = _train(client, "rl-training", "controller", rl_values, **fields)
    result = client.ablation(controller.experiment_id)
    out.print(report.ablation_table(result))
    for line in report.conclusions(result):
        out.print(f"      {line}", soft_wrap=True)

    _title(4, "Generating three stories from one prompt and one seed", "generate")
    policy = {"rl_checkpoint": f"{controller.experiment_id}/final"}
    with phase_times.phase("generation"):
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


def _cancel_old_demo_jobs(client: Client) -> None:
    """Cancel the jobs that an interrupted demonstration left behind, because they would run before the new jobs.

    Call this only on a stack that has just been started, because then no other demonstration uses the stack.
    """
    for job in client.jobs(tag=TAG, limit=100):
        if not job.ended:
            client.cancel_job(job.id)


def _pretrain(client: Client, instance: LocalInstance, corpus: DemoCorpus, values: dict[str, Any]) -> Job:
    """Pretrain the model and return the job. If the training fails, try again with `corpus.replacement`, if any."""
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
    """Submit a job and wait until it has completed.

    Raises UnavailableError with the last log lines if the job ends in any other status.
    """
    job = client.submit_job(job_type, config=config, name=f"demo: {label}", tags=[TAG], **fields)
    ended = watch(client, job, label=f"      {label}", console=out).job
    if ended.status == JobStatus.COMPLETED:
        return ended
    reason = f"{ended.error.code}: {ended.error.message or ''}" if ended.error else f"its status is {ended.status}"
    try:
        tail = [line.text for line in client.last_log_lines(job.id, LOG_LINES)]
    except TidalError:
        tail = []
    log = "\n".join(f"  {line}" for line in tail)
    raise UnavailableError(f"the job {job.id} ({job_type}) did not complete: {reason}" + (f"\n{log}" if log else ""))


@contextmanager
def _stack(phase_times: PhaseTimes, *, keep: bool, port: int | None) -> Iterator[tuple[LocalInstance, bool]]:
    """Yield (local stack, whether this command started it). Stop a stack that this command started, unless `keep`."""
    _title(1, "Starting PostgreSQL, Valkey, API, worker, generator, Flower", "up")
    running = read_instance()
    if running is not None and running.status == "ready":
        out.print(f"      the stack is already running at {running.api_url}")
        yield running, False
        return
    process: subprocess.Popen[bytes] | None = None
    completed = False
    try:
        with phase_times.phase("start"), err.status("      starting"):
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
            with phase_times.phase("stop"), err.status("      stopping"):
                _stop(process)


def _check_flower(instance: LocalInstance) -> None:
    """Check that Flower responds. Raises UnavailableError with the end of Flower's log if it does not."""
    deadline = time.monotonic() + FLOWER_SECONDS
    while True:
        try:
            if httpx.get(f"{instance.flower_url}/healthcheck", timeout=5, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            log = "\n".join(f"  {line}" for line in last_lines(Path(instance.logs_dir) / "flower.log", LOG_LINES))
            raise UnavailableError(f"Flower does not respond at {instance.flower_url}; its log ends with:\n{log}")
        time.sleep(0.5)


def _client(instance: LocalInstance) -> Client:
    return Client(instance.api_url, instance.token)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # this also ends the supervisor's services, but not PostgreSQL and Valkey
        process.wait()
        subprocess.run([sys.executable, "-m", "services.local", "down"], env=stack_environment())


def _title(number: int, text: str, note: str) -> None:
    out.print(Text.assemble((f"[{number}/4] ", "bold cyan"), (text, "bold"), (f"  {note}", "dim")))
