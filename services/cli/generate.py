"""`tidal generate`: text from a trained model, token by token, coloured by the modulation each was sampled with."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.text import Text

from common.client import Client, Generation
from common.errors import InvalidInputError, NotFoundError, UnavailableError
from services.cli.connection import Token, Url, connect
from services.cli.output import err, modulation_style, out, print_json


class GatingMode(StrEnum):
    """Where the modulation comes from."""

    NONE = "none"
    FIXED = "fixed"
    RANDOM = "random"
    LEARNED = "learned"


def command(
    prompt: Annotated[str, typer.Argument(help="The text to go on from.")] = "Once upon a time",
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", "-c", help="EXPERIMENT/FILE or EXPERIMENT/final. Default: the newest model."),
    ] = None,
    mode: Annotated[
        GatingMode, typer.Option("--gating", "-g", help="Where the modulation comes from.")
    ] = GatingMode.NONE,
    modulation: Annotated[
        float | None, typer.Option("--modulation", min=0, max=1, help="For gating fixed: 0 careful, 1 daring.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option("--policy", "-p", help="For gating learned: EXPERIMENT/final. Default: the newest."),
    ] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", "-n", min=1, max=4096, help="Length.")] = 120,
    temperature: Annotated[float | None, typer.Option("--temperature", min=0.01, help="For gating none.")] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", min=1, max=1024, help="For gating none.")] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", min=0.01, max=1, help="For gating none.")] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option("--repetition-penalty", min=0.01, help="For gating none.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="The same seed gives the same text.")] = None,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Print the text when it is complete.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")] = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Generate text with a trained model.

    On a terminal each token is coloured by its modulation: blue is careful, orange is daring.
    """
    with connect(url, token) as client:
        fields: dict[str, Any] = {
            "gating_mode": mode.value,
            "modulation": modulation,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "repetition_penalty": repetition_penalty,
            "seed": seed,
        }
        model = checkpoint or newest(client, "lm")
        if mode is GatingMode.LEARNED:
            fields["rl_checkpoint"] = policy or newest(client, "rl")
        elif policy is not None:
            raise InvalidInputError(f"--policy is used with --gating learned only, not {mode}")
        if as_json or no_stream:
            reply = client.generate(model, prompt, **fields)
            if as_json:
                print_json(reply.model_dump(mode="json", by_alias=True))
            else:
                out.print(Text.assemble((prompt, "dim"), coloured(reply)), soft_wrap=True)
        else:
            reply = stream(client, model, prompt, fields)
    if not as_json:
        rate = 1000 * reply.tokens_generated / reply.elapsed_ms if reply.elapsed_ms else 0.0
        dropped = f" · {reply.truncated} tokens left the window" if reply.truncated else ""
        err.print(f"{reply.tokens_generated} tokens · {rate:.0f} tokens/s · {model}{dropped}", style="dim")


def stream(client: Client, model: str, prompt: str, fields: dict[str, Any]) -> Generation:
    """Print prompt and tokens as they come; the whole reply at the end. UnavailableError when it breaks off."""
    reply: Generation | None = None
    begun = False
    try:
        for event in client.generate_stream(model, prompt, **fields):
            if not begun:  # before it there may be an error instead
                out.print(Text(prompt, style="dim"), end="", soft_wrap=True)
                begun = True
            if event.name == "token":
                style = modulation_style(event.data.get("modulation"))
                out.print(Text(event.data.get("text") or "", style=style), end="", soft_wrap=True)
            elif event.name == "done":
                reply = Generation.model_validate(event.data)
    finally:
        if begun:
            out.print()
    if reply is None:
        raise UnavailableError("the stream broke off before the text was complete; try again")
    return reply


def coloured(reply: Generation) -> Text:
    """The text, each token in the colour of its modulation."""
    if not reply.trajectory:
        return Text(reply.text)
    parts = [(str(step.get("text") or ""), modulation_style(step.get("modulation"))) for step in reply.trajectory]
    return Text.assemble(*parts)


def newest(client: Client, kind: str) -> str:
    """Reference of the newest finished experiment of `kind` (lm or rl)."""
    trained = client.experiments(kind=kind, status="completed", limit=1)
    imported = [found for found in client.experiments(kind=kind, limit=100) if found.status == "imported"]
    finished = sorted([*trained, *imported], key=lambda experiment: experiment.created_at)
    if finished:
        return f"{finished[-1].id}/final"
    what, submit = ("model", "lm-training") if kind == "lm" else ("controller", "rl-training")
    raise NotFoundError(f"there is no finished {what} yet; train one with `tidal jobs submit {submit}` or `tidal demo`")
