"""`tidal analyze …`: analyses how a controller sets the modulation and what one could gain; shows saved analyses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from common.errors import InvalidInputError, NotFoundError, TidalError
from common.words import plural
from services.cli.commands.generate import newest_checkpoint
from services.cli.configuration import read_overrides
from services.cli.connection import Token, Url, connect
from services.cli.output import age, err, out, print_json, table
from services.cli.views.analysis import render_analysis
from services.cli.views.headroom import render_headroom
from services.cli.views.watch import watch
from tidal_client import AnalysisResult, Client
from tidal_client.vocabulary import GatingMode, JobStatus, ModulatedGating
from tidal_client.wire.sampling import MAX_NEW_TOKENS

app = typer.Typer(help="Analyse how a controller sets the modulation.", no_args_is_help=True)

PROMPTS = ["Once upon a time", "The little cat", "Mom said to", "One day, a boy"]


Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        "-c",
        help="Language model: EXPERIMENT/FILE or EXPERIMENT/final. Default: the model that the controller was "
        "trained for or, without a controller, the newest model.",
    ),
]
Policy = Annotated[
    str | None, typer.Option("--policy", "-p", help="Controller: EXPERIMENT/final. Default: the newest controller.")
]
Gating = Annotated[ModulatedGating, typer.Option("--gating", "-g", help="How the modulation is chosen.")]
Modulation = Annotated[
    float | None, typer.Option("--modulation", min=0, max=1, help="Modulation, only with --gating fixed.")
]
Samples = Annotated[int, typer.Option("--samples", "-s", min=1, help="Number of texts to generate per prompt.")]
MaxTokens = Annotated[
    int, typer.Option("--max-tokens", "-n", min=1, max=MAX_NEW_TOKENS, help="Maximum number of tokens per text.")
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, help="Seed of the random numbers. The same seed gives the same analysis.")
]
Extremes = Annotated[
    bool, typer.Option("--extremes", help="Also generate from the same prompts at modulation 0, 0.5 and 1.")
]
PromptsFile = Annotated[
    Path | None, typer.Option("--prompts-file", help="File with further prompts, one per line.", dir_okay=False)
]
Save = Annotated[
    bool,
    typer.Option(
        "--save", help="Save the result with the experiment of the controller or, without a controller, of the model."
    ),
]
Name = Annotated[str | None, typer.Option("--name", help="Name of the saved analysis (only with --save or --job).")]
AsJob = Annotated[bool, typer.Option("--job", help="Submit the analysis as a job, which also saves the result.")]
Json = Annotated[bool, typer.Option("--json", help="Print the reply of the API as JSON.")]


@app.command()
def single(
    prompt: Annotated[str, typer.Argument(help="Text to continue.")] = PROMPTS[0],
    checkpoint: Checkpoint = None,
    policy: Policy = None,
    gating: Gating = GatingMode.LEARNED,
    modulation: Modulation = None,
    samples: Samples = 1,
    max_tokens: MaxTokens = 100,
    seed: Seed = 0,
    extremes: Extremes = False,
    save: Save = False,
    name: Name = None,
    job: AsJob = False,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Analyse one prompt.

    The result shows the modulation in each quarter of the text, its changes between quarters, and the tokens with the
    lowest and highest modulation.
    """
    fields = {"samples_per_prompt": samples, "modulation": modulation, "include_extreme_values": extremes or None}
    fields |= {"max_tokens": max_tokens, "seed": seed}
    with connect(url, token) as client:
        wanted = _build_request(client, "single", [prompt], checkpoint, policy, gating, fields)
        _run(client, wanted, _ResultOptions(save, name, job, as_json))


@app.command()
def batch(
    prompts: Annotated[
        list[str] | None, typer.Argument(help="Texts to continue. Default: the beginnings of four stories.")
    ] = None,
    prompts_file: PromptsFile = None,
    checkpoint: Checkpoint = None,
    policy: Policy = None,
    gating: Gating = GatingMode.LEARNED,
    modulation: Modulation = None,
    samples: Samples = 1,
    max_tokens: MaxTokens = 50,
    seed: Seed = 0,
    bootstrap: Annotated[
        bool,
        typer.Option("--bootstrap", "-b", help="Compute 95 % bootstrap confidence intervals from 1,000 resamples."),
    ] = False,
    extremes: Extremes = False,
    save: Save = False,
    name: Name = None,
    job: AsJob = False,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Compare prompts: how much the modulation varies between and within them."""
    fields = {"samples_per_prompt": samples, "modulation": modulation, "include_extreme_values": extremes or None}
    fields |= {"max_tokens": max_tokens, "seed": seed, "bootstrap": bootstrap or None}
    with connect(url, token) as client:
        wanted = _build_request(client, "batch", _prompts(prompts, prompts_file), checkpoint, policy, gating, fields)
        _run(client, wanted, _ResultOptions(save, name, job, as_json))


@app.command()
def sweep(
    prompts: Annotated[list[str] | None, typer.Argument(help="Texts to continue.")] = None,
    prompts_file: PromptsFile = None,
    checkpoint: Checkpoint = None,
    max_tokens: MaxTokens = 50,
    seed: Seed = 0,
    save: Save = False,
    name: Name = None,
    job: AsJob = False,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Compare texts generated at modulation 0, 0.5 and 1 by their numbers of words, distinct words and characters.

    No controller is needed.
    """
    given = _prompts(prompts or ([] if prompts_file else PROMPTS[:1]), prompts_file)
    fields: dict[str, Any] = {"max_tokens": max_tokens, "seed": seed}
    with connect(url, token) as client:
        wanted = _AnalysisRequest("sweep", given, checkpoint or newest_checkpoint(client, "lm"), None, fields)
        _run(client, wanted, _ResultOptions(save, name, job, as_json))


@app.command()
def headroom(
    checkpoint: Annotated[
        str | None,
        typer.Argument(help="Language model: EXPERIMENT/FILE or EXPERIMENT/final. Default: the newest model."),
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", help="File in the configuration folder of the server, with the reward.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override one value of the configuration: headroom.documents=200."),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Corpus, as in `tidal jobs submit`. Default: that of the model.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the job and its experiment.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Measure what any controller could gain over the best constant modulation, before one is trained.

    Runs as a job, waits for it and shows its result: the reward of 21 constants, and the gain of policies that are
    fitted to held-out text. Where there is no headroom, the result names what to change.
    """
    with connect(url, token) as client:
        job = client.submit_job(
            "headroom",
            config=read_overrides(None, settings or []),
            checkpoint=checkpoint or newest_checkpoint(client, "lm"),
            rl_config_path=config,
            data={"source": data} if data is not None else None,
            name=name,
        )
        ended = watch(client, job, label="headroom").job
        if ended.status != JobStatus.COMPLETED:
            reason = f": {ended.error.message}" if ended.error is not None else ""
            raise TidalError(f"the job {job.id} is {ended.status}{reason}; see `tidal jobs show {job.id}`")
        result = client.headroom(job.experiment_id)
    if as_json:
        print_json(result)
        return
    for part in render_headroom(result):
        out.print(part)


@app.command("list")
def list_analyses(
    experiment: Annotated[str, typer.Argument(help="Id of the experiment whose analyses are shown.")],
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Maximum number of analyses to show.")] = 20,
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show the saved analyses of an experiment, and those that jobs made of its checkpoints."""
    with connect(url, token) as client:
        found = client.analyses(experiment, limit=limit)
    if as_json:
        print_json([analysis.model_dump(mode="json", by_alias=True) for analysis in found])
        return
    if not found:
        err.print("There are no analyses. Run one with `tidal analyze batch --save`.")
        return
    rows = table("analysis", "kind", "prompts>", "name", "made by", "made")
    for analysis in found:
        prompts = analysis.request.get("prompts")
        count = str(len(prompts)) if isinstance(prompts, list) else ""
        made = age(analysis.created_at)
        rows.add_row(analysis.id, analysis.kind, count, analysis.name or "", analysis.job_id or "", made)
    out.print(rows)


@app.command()
def show(
    analysis: Annotated[str, typer.Argument(help="Id of the analysis.")],
    as_json: Json = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show a saved analysis."""
    with connect(url, token) as client:
        found = client.analysis(analysis)
    if as_json:
        print_json(found.model_dump(mode="json", by_alias=True))
    elif found.result is not None:
        _print(found.result)


@app.command()
def delete(
    analysis: Annotated[str, typer.Argument(help="Id of the analysis.")], url: Url = None, token: Token = None
) -> None:
    """Delete a saved analysis."""
    with connect(url, token) as client:
        client.delete_analysis(analysis)
    err.print(f"Deleted {analysis}.")


@dataclass(frozen=True)
class _AnalysisRequest:
    kind: str
    prompts: list[str]
    checkpoint: str
    policy: str | None
    fields: dict[str, Any]

    @property
    def given(self) -> dict[str, Any]:
        """Return the fields that are not None. The server uses its defaults for the fields that are None here."""
        return {name: value for name, value in self.fields.items() if value is not None}


@dataclass(frozen=True)
class _ResultOptions:
    save: bool
    name: str | None
    job: bool
    as_json: bool

    def __post_init__(self) -> None:
        if self.name is not None and not (self.save or self.job):
            raise InvalidInputError("--name can be used only with --save or --job, because it names a saved analysis")


def _build_request(
    client: Client,
    kind: str,
    prompts: list[str],
    checkpoint: str | None,
    policy: str | None,
    gating: ModulatedGating,
    fields: dict[str, Any],
) -> _AnalysisRequest:
    """Return the request.

    The default controller is the newest one. The default model is the one for which the controller was trained; if no
    controller is used, the newest one.
    """
    if gating is GatingMode.LEARNED:
        try:
            policy = policy or newest_checkpoint(client, "rl")
        except NotFoundError as error:
            raise NotFoundError(f"{error.message}, or use --gating random, which needs no controller") from None
        source = None if checkpoint else client.experiment(_experiment(policy)).source_experiment_id
        checkpoint = checkpoint or (f"{source}/final" if source else None)
    elif policy is not None:
        raise InvalidInputError(f"--policy can be used only with --gating learned, not {gating}")
    return _AnalysisRequest(
        kind, prompts, checkpoint or newest_checkpoint(client, "lm"), policy, {**fields, "gating_mode": gating}
    )


def _run(client: Client, wanted: _AnalysisRequest, options: _ResultOptions) -> None:
    if options.job:
        config = {"kind": wanted.kind, "prompts": wanted.prompts, **wanted.given}
        job = client.submit_job(
            "analysis", config=config, checkpoint=wanted.checkpoint, rl_checkpoint=wanted.policy, name=options.name
        )
        if options.as_json:
            print_json(job.model_dump(mode="json", by_alias=True))
            return
        out.print(f"Submitted {job.id}.")
        err.print(
            f"Follow the job with: tidal jobs watch {job.id}\nThen find the result with: tidal analyze list "
            f"{job.experiment_id}",
            soft_wrap=True,
        )
        return
    with _bar() as on_progress:
        result = client.analyze(
            wanted.checkpoint,
            wanted.prompts,
            on_progress=on_progress,
            kind=wanted.kind,
            rl_checkpoint=wanted.policy,
            **wanted.given,
        )
    if options.as_json:
        print_json(result.model_dump(mode="json", by_alias=True))
    else:
        _print(result)
    if options.save:
        saved = client.save_analysis(_experiment(wanted.policy or wanted.checkpoint), result, name=options.name)
        err.print(f"Saved as {saved.id}. Show it with: tidal analyze show {saved.id}", soft_wrap=True)


def _print(result: AnalysisResult) -> None:
    for part in render_analysis(result):
        out.print(part)
    rate = 1000 * result.tokens_generated / result.elapsed_ms if result.elapsed_ms else 0.0
    gating = result.request.get("rlCheckpoint") or result.request.get("gatingMode") or ""
    source = result.request.get("checkpoint") or ""
    if result.kind != "sweep":
        source = f"{source} · {gating}"
    err.print(
        f"{plural(result.tokens_generated, 'token')} · {rate:.0f} tokens/s · {source}", style="dim", soft_wrap=True
    )


@contextmanager
def _bar() -> Iterator[Any]:
    columns = (TextColumn("generating"), BarColumn(), MofNCompleteColumn(), TextColumn("tokens"), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as shown:
        task = shown.add_task("", total=None)
        yield lambda tokens, most: shown.update(task, completed=tokens, total=most)


def _prompts(given: list[str] | None, file: Path | None) -> list[str]:
    """Return the prompts of the command line and then the non-blank lines of the file.

    If there is neither a prompt nor a file, return PROMPTS.
    """
    lines = []
    if file is not None:
        try:
            with file.open(encoding="utf-8-sig") as opened:
                lines = [line.rstrip() for line in opened if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"--prompts-file {file}: the file cannot be read ({error})") from None
        if not lines:
            raise InvalidInputError(f"--prompts-file {file}: the file has no prompts; write one per line")
    return [*(given or []), *lines] or PROMPTS


def _experiment(reference: str) -> str:
    return reference.removeprefix("experiments/").split("/", 1)[0]
