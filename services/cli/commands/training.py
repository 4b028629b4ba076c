"""`tidal train lm|rl`: trains in this terminal without database, queue or api. The trainer is a child process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.cli.processes import run_module

app = typer.Typer(help="Train in this terminal, without any service.", no_args_is_help=True)

Out = Annotated[
    Path,
    typer.Option(
        "--out", "-o", help="Folder of the experiment. If the folder contains checkpoints, the training continues."
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Corpus: builtin:stories, the name of a dataset, a text file, or OWNER/NAME on the Hugging Face hub.",
    ),
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder that contains corpora and the token cache.")]
ResumeFrom = Annotated[
    Path | None,
    typer.Option(
        "--resume-from", help="Checkpoint of another experiment folder to continue from: FOLDER/checkpoints/NAME."
    ),
]
NoResume = Annotated[bool, typer.Option("--no-resume", help="Fail if the folder already contains checkpoints.")]


@app.command()
def lm(
    out: Out,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="YAML file with the configuration. Default: a model of 30.6 M parameters."),
    ] = None,
    data: Data = None,
    data_dir: DataDir = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            help="Language model to start from: FOLDER/checkpoints/NAME, whose training continues if it has read the "
            "same text, or a file of weights. With another text, it is fine-tuned.",
        ),
    ] = None,
    fine_tune: Annotated[
        bool, typer.Option("--fine-tune", help="Take over only the weights of --checkpoint, even for the same text.")
    ] = False,
    resume_from: ResumeFrom = None,
    no_resume: NoResume = False,
) -> None:
    """Train a language model. Ctrl-C writes a checkpoint (exit status 3), from which the same command continues."""
    _train("lm", out, config, data, data_dir, checkpoint, resume_from, no_resume, fine_tune=fine_tune)


@app.command()
def rl(
    out: Out,
    checkpoint: Annotated[Path, typer.Option("--checkpoint", help="Language model that the controller steers.")],
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML file with the configuration of the controller.")
    ] = None,
    data: Data = None,
    data_dir: DataDir = None,
    resume_from: ResumeFrom = None,
    no_resume: NoResume = False,
) -> None:
    """Train a controller for a language model, then compare it with constant and random modulation (ablation)."""
    _train("rl", out, config, data, data_dir, checkpoint, resume_from, no_resume)


def _train(
    kind: str,
    out: Path,
    config: Path | None,
    data: str | None,
    data_dir: Path | None,
    checkpoint: Path | None,
    resume_from: Path | None,
    no_resume: bool,
    *,
    fine_tune: bool = False,
) -> None:
    named = {
        "--config": config,
        "--data": data,
        "--data-dir": data_dir,
        "--checkpoint": checkpoint,
        "--resume-from": resume_from,
    }
    arguments = [part for name, value in named.items() if value is not None for part in (name, str(value))]
    if no_resume:
        arguments.append("--no-resume")
    if fine_tune:
        arguments.append("--fine-tune")
    run_module("services.trainer", "--local", kind, "--out", str(out), *arguments)
