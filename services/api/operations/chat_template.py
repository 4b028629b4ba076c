"""Which chat template a model of the store has: a file beside it, or the default."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from common.artifacts import ArtifactStore, split_reference
from common.chat.template import DEFAULT_STOP, DEFAULT_TEMPLATE, find_template, read_template


def chat_template(store: ArtifactStore, reference: str) -> tuple[str, list[str]]:
    """Return the template of a model and the strings at which its replies end; the default if the model has none.

    Raises InvalidInputError if the template cannot be read.
    """
    path = template_path(store, reference)
    return (DEFAULT_TEMPLATE, [DEFAULT_STOP]) if path is None else (read_template(path), [])


def template_path(store: ArtifactStore, reference: str) -> Path | None:
    """Return the file with the template of a model, or None if it has none."""
    return find_template(store.path(*split_reference(reference)), store.experiment(reference.split("/", 1)[0]))


def template_kind(store: ArtifactStore, reference: str) -> Literal["own", "default"]:
    """Return which template a model is used with."""
    return "default" if template_path(store, reference) is None else "own"
