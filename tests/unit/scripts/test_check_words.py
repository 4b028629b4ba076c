"""Words that the glossary replaces by others are found in prose and in identifiers, except in the listed contexts."""

from __future__ import annotations

import pytest

from scripts.check_words import hits


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("# The wishes of a job.", "wishes"),
        ("def take_wish(job): ...", "wish"),
        ("class WishList: ...", "Wish"),
        ('log.info("the client is gone")', "gone"),
        ("told = reply.json()", "told"),
        ("# one flight is launched", "flight"),
        ("drawnTokens = 3", "drawn"),
        ("lam = 0.95", "lam"),
        ("pg_loss = 0.0", "pg loss"),
        ("owner_id = 3", "owner id"),
        ("its = files[name]", "its"),
    ],
)
def test_a_word_to_avoid_is_found(line: str, word: str) -> None:
    assert [hit.word for hit in hits("common/jobs/claiming.py", line)] == [word]


@pytest.mark.parametrize(
    "line",
    [
        "# A preflight request. Steps in flight and an in-flight step.",
        "in_flight = InFlightStep()",
        "drawing = withdrawn | foretold",
        "# its parts are the lambda of a formula",
        'assert reply.status_code == 410, "gone"',
        '"TIDAL_WISH_POLL_SECONDS": "TIDAL_DESIRED_STATE_POLL_SECONDS"',
    ],
)
def test_other_words_and_listed_contexts_are_not_hits(line: str) -> None:
    assert list(hits("common/jobs/claiming.py", line)) == []


def test_a_context_is_limited_to_its_files() -> None:
    line = "draw(chart)"
    assert not list(hits("common/reports/svg.py", line))
    assert list(hits("common/rl/rollout.py", line))
