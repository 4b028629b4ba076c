"""English grammar for messages: articles, plurals, durations.

`common.reports.words` formats numbers and times for reports, and `services.cli.output` formats them for tables of the
command line.
"""

from __future__ import annotations

from datetime import timedelta

_NEEDS_AN = ("a", "e", "i", "o", "u", "lm", "rl")
"""Beginnings of words that take the article `an`. LM and RL are here because they are pronounced as letters."""


def plural(amount: int, noun: str) -> str:
    """Return the amount and the noun in the singular or plural: `1 prompt`, `2 prompts`."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def with_article(noun: str) -> str:
    """Return the noun with its article: `an ablation`, `an lm-training`, `a dataset`."""
    return f"{'an' if noun.lower().startswith(_NEEDS_AN) else 'a'} {noun}"


def span(length: timedelta | float) -> str:
    """Return a duration (in seconds) as text: `12 s`, `3 min`, `2.5 h`, `30.5 days`, `73 years`."""
    seconds = length.total_seconds() if isinstance(length, timedelta) else length
    if seconds < 120:
        return f"{max(0, round(seconds))} s"
    if seconds < 7200:
        return f"{round(seconds / 60)} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} days" if seconds < 730 * 86_400 else f"{seconds / 31_557_600:.0f} years"
