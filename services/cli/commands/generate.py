"""`tidal generate`: generates text with a trained model and prints it token by token, coloured by modulation.

The text comes from the API or, without any service, from a child process that loads a local file. Both yield the same
events; `views.tokens` prints them.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from common.errors import InvalidInputError, NotFoundError, UnavailableError
from common.words import plural
from services.cli import local_generation
from services.cli.checkpoint_source import checkpoint_path, is_path
from services.cli.connection import Token, Url, connect
from services.cli.output import err, print_json
from services.cli.views.tokens import Color, TokenView
from tidal_client import Client, Generation, StreamEvent
from tidal_client.vocabulary import IMPORTED, GatingMode, JobStatus
from tidal_client.wire.generation_event import EVENT_DONE, EVENT_TOKEN
from tidal_client.wire.sampling import (
    MAX_NEW_TOKENS,
    MAX_REPETITION_PENALTY,
    MAX_STOP_STRINGS,
    MAX_TEMPERATURE,
    MAX_TOP_K,
    MIN_REPETITION_PENALTY,
    SamplingRequest,
    check_temperature,
)

INTERRUPTED = 130
EXAMPLES = """
[bold]Examples[/bold]

tidal generate "Once upon a time"

tidal generate "The cat" --gating fixed --modulation 0.8 --seed 7

tidal generate "The cat" --gating learned --stop "The end" --max-tokens 300

tidal generate -c out/lm "Once upon a time"       (model in the folder out/lm of `tidal train lm`, no service needed)

echo "One day" | tidal generate - --json
"""


@dataclass(frozen=True)
class GenerationSource:
    """A model with a running generation. `name` describes the model to the user."""

    name: str
    events: Generator[StreamEvent]


def command(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(help="Text to continue. - reads the text from stdin.")] = "Once upon a time",
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            "-c",
            help="Language model: EXPERIMENT/FILE, EXPERIMENT/final, or a local file or folder, which is loaded "
            "without the "
            "API. Default: the newest model.",
        ),
    ] = None,
    gating_mode: Annotated[
        GatingMode, typer.Option("--gating", "-g", help="How the modulation is chosen.")
    ] = GatingMode.NONE,
    modulation: Annotated[
        float | None,
        typer.Option(
            "--modulation", min=0, max=1, help="Modulation from 0 (careful) to 1 (daring), only with --gating fixed."
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            "-p",
            help="Controller, only with --gating learned: EXPERIMENT/final. Default: the newest controller.",
        ),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", "-n", min=1, max=MAX_NEW_TOKENS, help="Maximum number of tokens to generate.")
    ] = 120,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            min=0,
            max=MAX_TEMPERATURE,
            help="Sampling temperature, only with --gating none. 0 always selects the most likely token.",
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k", min=1, max=MAX_TOP_K, help="Sample only from the N most likely tokens (only with --gating none)."
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            "--top-p",
            min=0,
            max=1,
            help="Sample only from the most likely tokens whose probabilities sum to this value, which must be above 0 "
            "(only with --gating none).",
        ),
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        typer.Option(
            "--repetition-penalty",
            min=MIN_REPETITION_PENALTY,
            max=MAX_REPETITION_PENALTY,
            help="Factor that makes earlier tokens less likely, only with --gating none. 1 means no penalty.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", min=0, help="Seed of the sampling. The same seed gives the same text. Default: a random one."
        ),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", help="End the generation before this text. The option can be given up to four times."),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Load the checkpoint in a child process instead of using the API.")
    ] = False,
    color: Annotated[
        Color,
        typer.Option(
            "--color", help="When to colour tokens by modulation. auto: on a terminal, unless NO_COLOR is set."
        ),
    ] = Color.AUTO,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Print the text only when it is complete.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reply as JSON.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Generate text with a trained model.

    Each token is coloured by its modulation: blue is careful, red is daring. Ctrl-C stops the generation, also on the
    server.
    """
    if stop and (len(stop) > MAX_STOP_STRINGS or "" in stop):
        raise InvalidInputError("--stop can be given up to four times, and its value cannot be empty")
    if policy is not None and gating_mode is not GatingMode.LEARNED:
        raise InvalidInputError(f"--policy can be used only with --gating learned, not {gating_mode}")
    if top_p == 0:
        raise InvalidInputError("--top-p 0 leaves no token to sample from; use a larger value, such as 0.9")
    if temperature is not None:
        try:
            check_temperature(temperature)
        except ValueError as error:
            raise InvalidInputError(f"--{error}") from None
    if prompt == "-":
        prompt = sys.stdin.read()
    # Options whose names are fields of SamplingRequest are sent under these names.
    given = {name: value for name, value in context.params.items() if name in SamplingRequest.model_fields}
    fields: dict[str, Any] = {**given, "gating_mode": gating_mode.value, "stop": stop or None}
    learned = gating_mode is GatingMode.LEARNED
    is_local = local or (checkpoint is not None and is_path(checkpoint))
    with ExitStack() as stack:
        waiting = err.status("loading the model" if is_local else "waiting for the first token")
        view = TokenView(color, prompt, gating_mode.value, on_first=waiting.stop)
        try:
            stack.enter_context(waiting)
            if is_local:
                source = local_source(checkpoint, policy, learned, prompt, fields)
            else:
                client = stack.enter_context(connect(url, token))
                source = api_source(client, checkpoint, policy, learned, prompt, fields)
            reply = follow(source, view, quiet=as_json or no_stream)
            waiting.stop()
            if as_json:
                print_json(reply.model_dump(mode="json", by_alias=True))
                return
            view.print_reply(reply)
        except KeyboardInterrupt:
            waiting.stop()
            view.end_line()
            err.print(f"stopped after {plural(view.count, 'token')}", style="yellow")
            raise typer.Exit(INTERRUPTED) from None
        finally:
            view.end_line()
        view.print_summary(reply, source.name)


command.__doc__ = (command.__doc__ or "") + EXAMPLES


def local_source(
    checkpoint: str | None, policy: str | None, learned: bool, prompt: str, fields: dict[str, Any]
) -> GenerationSource:
    """Start the generation in a child process. Raises NotFoundError if a named file does not exist, or if none is named
    and no experiment has finished."""
    model = checkpoint_path(checkpoint) if checkpoint else local_generation.newest_checkpoint(policy=False)
    controller = None
    if learned:
        controller = checkpoint_path(policy) if policy else local_generation.newest_checkpoint(policy=True)
    return GenerationSource(f"{checkpoint or model}, local", local_generation.events(model, controller, prompt, fields))


def api_source(
    client: Client, checkpoint: str | None, policy: str | None, learned: bool, prompt: str, fields: dict[str, Any]
) -> GenerationSource:
    """Start the generation in the API.

    Raises NotFoundError if no checkpoint is named and no experiment has finished.
    """
    model = checkpoint or newest_checkpoint(client, "lm")
    if learned:
        fields = {**fields, "rl_checkpoint": policy or newest_checkpoint(client, "rl")}
    return GenerationSource(model, client.generate_stream(model, prompt, **fields))


def follow(source: GenerationSource, view: TokenView, *, quiet: bool) -> Generation:
    """Print tokens with `view` unless `quiet`, and return the reply. Raises UnavailableError if the reply is not
    complete."""
    with closing(source.events) as events:
        for event in events:
            if event.name == EVENT_TOKEN and not quiet:
                view.print_token(event.data)
            elif event.name == EVENT_DONE:
                return Generation.model_validate(event.data)
    raise UnavailableError("the connection broke before the text was complete; try again")


def newest_checkpoint(client: Client, kind: str) -> str:
    """Return a reference to the final model of the newest finished experiment of `kind` (lm or rl)."""
    trained = client.experiments(kind=kind, status=JobStatus.COMPLETED, limit=1)
    imported = [found for found in client.experiments(kind=kind, limit=100) if found.status == IMPORTED]
    finished = sorted([*trained, *imported], key=lambda experiment: experiment.created_at)
    if finished:
        return f"{finished[-1].id}/final"
    what, submit = ("model", "lm-training") if kind == "lm" else ("controller", "rl-training")
    raise NotFoundError(f"there is no finished {what} yet; train one with `tidal jobs submit {submit}` or `tidal demo`")
