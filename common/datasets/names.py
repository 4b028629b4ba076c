"""What a dataset may be called: a word that is no path, no file name and no name on the hub.

So `data.source: my-stories` means one thing only, and no name leads out of the folder.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from common.errors import InvalidInputError

SUFFIXES = (".txt", ".jsonl", ".parquet")
GZIP_SUFFIX = ".gz"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
RULE = "1 to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit, and no suffix of a file"


def is_dataset_name(text: str) -> bool:
    """Whether `text` has the form of a dataset's name."""
    return bool(_NAME.fullmatch(text)) and not text.lower().endswith((*SUFFIXES, GZIP_SUFFIX))


def check_name(name: str, *, location: str = "query.name") -> str:
    """`name` as it is; InvalidInputError when no dataset may be called so."""
    if not is_dataset_name(name):
        message = f"{name[:80]!r} cannot be a dataset's name: {RULE}"
        raise InvalidInputError(message, errors=[{"location": location, "message": message}])
    return name


def split_name(text: str) -> tuple[str, str | None]:
    """`stories.jsonl.gz` as `stories` and `jsonl`; without a known suffix the second part is None."""
    name = text[: -len(GZIP_SUFFIX)] if text.lower().endswith(GZIP_SUFFIX) else text
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)], suffix[1:]
    return name, None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, if any is."""
    by_lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None
