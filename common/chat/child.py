"""The child that renders templates: `python -m common.chat.child`.

It writes the line `ready`, then reads requests and writes replies, one JSON object per line: `{"template",
"messages"}`, and `{"text"}` or `{"error"}`. It exits when its standard input is closed.

Jinja's sandbox forbids attributes that lead out of the template, and changes of its arguments. `limit_memory` bounds
what `'a' * 10 ** 9` can do. The parent kills the child when a template takes too long; if the parent has died
meanwhile, a timer of the kernel does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from common.decoding.memory import limit_memory

MEMORY_BYTES = 64 * 1024 * 1024
"""Number of bytes that the child may allocate beyond what it needs to start."""
MOST_CHARACTERS = 100_000
"""Largest number of characters of the result, which is that of a prompt."""
LAST_RESORT_SECONDS = 5.0
"""Seconds after which the kernel ends a child that is still rendering the same template."""
MOST_TEMPLATES = 16
"""Number of compiled templates that are kept."""
_compiled: dict[str, Template] = {}


class Refused(TemplateError):
    """Raised by a template that calls `raise_exception`."""


def main() -> None:
    """Answer requests until standard input ends."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)  # nothing else writes into the replies
    environment = make_environment()
    limit_memory(MEMORY_BYTES)
    out.write("ready\n")
    out.flush()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, LAST_RESORT_SECONDS)
        reply = answer(environment, request["template"], request["messages"])
        signal.setitimer(signal.ITIMER_REAL, 0)
        out.write(json.dumps(reply) + "\n")
        out.flush()


def make_environment() -> ImmutableSandboxedEnvironment:
    """Return the environment that transformers documents for chat templates, without access to Python."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols"],
        keep_trailing_newline=True,
    )
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    environment.filters["tojson"] = filter_json
    return environment


def answer(environment: ImmutableSandboxedEnvironment, template: str, messages: list[dict[str, Any]]) -> dict[str, str]:
    """Return `{"text": …}`, or `{"error": …}` with the reason why there is no text."""
    try:
        compiled = _compiled.get(template)
        if compiled is None:
            compiled = environment.from_string(template)
            if len(_compiled) >= MOST_TEMPLATES:
                _compiled.clear()
            _compiled[template] = compiled
        parts, length = [], 0
        variables = {"messages": messages, "add_generation_prompt": True, "bos_token": "", "eos_token": ""}
        for part in compiled.generate(**variables):
            length += len(part)
            if length > MOST_CHARACTERS:
                return {"error": f"the conversation has more than {MOST_CHARACTERS:,} characters as a prompt"}
            parts.append(part)
        return {"text": "".join(parts)}
    except Refused as error:
        return {"error": f"the model's chat template refuses these messages: {error.message}"}
    except SecurityError as error:
        return {"error": f"the model's chat template does something that is forbidden: {error.message}"}
    except MemoryError:
        return {"error": "the model's chat template needs too much memory"}
    except TemplateError as error:
        return {"error": f"the model's chat template is invalid: {type(error).__name__}: {error.message}"[:500]}
    except Exception as error:  # a template can raise anything that its expressions raise
        return {"error": f"the model's chat template failed: {type(error).__name__}: {error}"[:500]}


def raise_exception(message: object) -> NoReturn:
    """Refuse the conversation; templates call this function."""
    raise Refused(str(message)[:500])


def strftime_now(pattern: str) -> str:
    """Return the present time; templates call this function."""
    return datetime.now().strftime(pattern)


def filter_json(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    """Return `value` as JSON without HTML escapes, as transformers does."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


if __name__ == "__main__":
    main()
