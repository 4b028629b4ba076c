"""English for messages that people read: articles, plurals, lengths of time.

Leaves out: numbers and times inside reports (`common.reports.words`), and in columns of the command line
(`services.cli.output`).
"""

from __future__ import annotations

from datetime import timedelta

_SPOKEN_WITH_A_VOWEL = ("a", "e", "i", "o", "u", "lm", "rl")
"""How words begin that want `an`; LM and RL are spoken as letters."""


def plural(amount: int, noun: str) -> str:
    """`1 prompt`, `2 prompts`."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def with_article(noun: str) -> str:
    """`an ablation`, `an lm-training`, `a dataset`."""
    return f"{'an' if noun.lower().startswith(_SPOKEN_WITH_A_VOWEL) else 'a'} {noun}"


def span(length: timedelta | float) -> str:
    """A length of time, given in seconds: `12 s`, `3 min`, `2.5 h`, `30.5 days`, `73 years`."""
    seconds = length.total_seconds() if isinstance(length, timedelta) else length
    if seconds < 120:
        return f"{max(0, round(seconds))} s"
    if seconds < 7200:
        return f"{round(seconds / 60)} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} days" if seconds < 730 * 86_400 else f"{seconds / 31_557_600:.0f} years"
