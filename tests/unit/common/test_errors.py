"""Errors that name the place of what is wrong."""

from __future__ import annotations

from common.errors import InvalidInputError


def test_an_error_at_a_place_says_it_in_its_text_and_as_its_one_finding() -> None:
    error = InvalidInputError.at("query.cursor", "no cursor of this list")
    assert (error.message, error.status, error.code) == ("query.cursor: no cursor of this list", 422, "invalid_input")
    assert error.errors == [{"location": "query.cursor", "message": "no cursor of this list"}]
