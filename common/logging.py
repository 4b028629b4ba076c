"""Configures logging: one line per event, as readable text or, with TIDAL_LOG_FORMAT=json, as JSON.

Every entry point calls `configure(service)` once; modules use `get_logger(__name__)`. Bind values that identify the
work (`job_id`, `attempt`) with `structlog.contextvars.bound_contextvars`. Never log tokens, prompts or passwords. Every
value is escaped to one line without control characters, and a traceback is indented. So neither can imitate a log line
or control a terminal. Repeated lines are counted (`common.log_repeats`).
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from typing import TextIO, cast

import structlog

from common.log_repeats import RepeatFilter
from common.plain_text import escaped, escaped_lines
from common.streams import accept_any_text

NOISY = (
    "httpx",
    "httpcore",
    "urllib3",
    "alembic.runtime.plugins",
    "celery.worker.consumer.connection",
    "flower.command",
    "kombu.mixins",
)
"""Loggers of libraries that are limited to WARNING, because their lines below WARNING repeat what Tidal logs itself."""
LEVELS = ("debug", "info", "warning", "error")
MOST_CHARACTERS = 4000
"""Largest number of characters of a logged value; longer values are cut, because clients may send long texts."""
MOST_TRACEBACK_CHARACTERS = 40_000
"""Largest number of characters of a logged traceback; of a longer one, only the beginning and the end are logged."""


def configure(service: str, *, level: str | None = None, json_lines: bool | None = None) -> None:
    """Send structlog and stdlib logging to stderr in one format that names `service` in every line.

    Characters that the encoding of the standard streams lacks are written as escapes.

    `level` defaults to TIDAL_LOG_LEVEL (info), `json_lines` to TIDAL_LOG_FORMAT == "json". An unknown level means info
    and logs a warning, because a wrong log setting should not prevent a start.
    """
    accept_any_text()
    given_level = (level or os.environ.get("TIDAL_LOG_LEVEL", "info")).strip()
    level = given_level.upper() if given_level.lower() in LEVELS else "INFO"
    if json_lines is None:
        json_lines = os.environ.get("TIDAL_LOG_FORMAT", "text") == "json"

    def add_service(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event.setdefault("service", service)
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        add_service,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json_lines
        # structlog's default formatter would print local variables, which is slow and reveals tokens and prompts.
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_indented_traceback)
    )
    tail: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if json_lines:
        tail.append(structlog.processors.format_exc_info)
    tail.append(_shortened if json_lines else _on_one_line)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*tail, renderer]))
    handler.addFilter(RepeatFilter(handler.handle))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if given_level.lower() not in LEVELS:
        message = f"TIDAL_LOG_LEVEL is not one of {', '.join(LEVELS)}; using info"
        get_logger(__name__).warning(message, given=given_level)


def _on_one_line(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape every text value to one printable line; keep the lines of a traceback and indent them."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = escaped_lines(value, "    ") if name == "stack" else escaped(value, MOST_CHARACTERS)
    return event


def _shortened(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Cut long texts; JSON output needs no other escaping."""
    for name, value in event.items():
        most = MOST_TRACEBACK_CHARACTERS if name in ("exception", "stack") else MOST_CHARACTERS
        if isinstance(value, str) and len(value) > most:
            event[name] = f"{value[: most // 2]} … {value[-most // 2 :]}"
    return event


def _indented_traceback(output: TextIO, error: structlog.typing.ExcInfo) -> None:
    text = "".join(traceback.format_exception(*error)).rstrip("\n")
    if len(text) > MOST_TRACEBACK_CHARACTERS:
        half = MOST_TRACEBACK_CHARACTERS // 2
        text = f"{text[:half]}\n…\n{text[-half:]}"
    output.write("\n" + escaped_lines(text, "    "))


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger that takes an event and key-value pairs: `log.info("job claimed", job_id=…)`."""
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger(name))
