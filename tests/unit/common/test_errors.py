"""Errors that name the location of the invalid value."""

from __future__ import annotations

from common.errors import InvalidInputError


def test_an_error_at_a_location_has_it_in_the_message_and_in_the_list_of_errors() -> None:
    error = InvalidInputError.at("query.cursor", "not a cursor of this list")
    assert (error.message, error.status, error.code) == (
        "query.cursor: not a cursor of this list",
        422,
        "invalid_input",
    )
    assert error.errors == [{"location": "query.cursor", "message": "not a cursor of this list"}]
