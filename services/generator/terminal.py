"""`python -m services.generator.terminal`: generates one text without any service, for `tidal generate --local`.

It reads one JSON object from stdin. The keys `checkpoint` and `policy` contain paths (`policy` may be null), and
`prompt` contains the text. All other keys are keyword arguments of `common.generation.generate`. It writes JSON lines
to stdout, each with the keys `event` and `data`. The event is "token", "done" or "error"; its data is built by
`services.generator.wire`. Ctrl-C or a closed stdout ends the process at once.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

import torch

from common.checkpoint import load_model
from common.controller import load_policy
from common.errors import TidalError
from common.generation import TokenStep, generate
from common.redis.generation_events import error_data
from common.streams import accept_any_text
from services.generator.wire import wire_reply, wire_token
from tidal_client.wire.generation_event import EVENT_DONE, EVENT_ERROR, EVENT_TOKEN, GenerationEvent


def main() -> int:
    """Generate one text. Return the exit status: 0, or 1 after an `error` event."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    accept_any_text()
    fields = json.loads(sys.stdin.read())
    try:
        _run(**fields)
    except TidalError as error:
        _write(EVENT_ERROR, error_data(error))
        return 1
    return 0


def _run(checkpoint: str, policy: str | None, prompt: str, **fields: Any) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    count = 0

    def send_token(step: TokenStep) -> None:
        nonlocal count
        _write(EVENT_TOKEN, wire_token(count, step, tokenizer))
        count += 1

    controller = None if policy is None else load_policy(policy, device=device)
    model = load_model(checkpoint, device=device)
    tokenizer = model.vocabulary.encoding
    generation = generate(model, prompt, policy=controller, on_token=send_token, **fields)
    _write(EVENT_DONE, wire_reply(generation, tokenizer))


def _write(event: str, data: GenerationEvent) -> None:
    sys.stdout.write(json.dumps({"event": event, "data": data}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
