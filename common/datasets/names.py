"""Checks the names of corpora: `builtin:stories`, an uploaded dataset, a file, or owner/name of a Hugging Face dataset.

The name of an uploaded dataset cannot be a path, a file name or the name of a Hugging Face dataset. `data.source:
my-stories` is therefore unambiguous, and the name of an uploaded dataset never refers to a file outside the dataset's
folder. `common.data.places` checks which folders files may be in.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable

from common.datasets.kinds import GZIP_SUFFIX, SUFFIXES, file_name_problem
from common.errors import InvalidInputError

BUILTIN = "builtin:"
BUILTIN_STORIES = "builtin:stories"
MOST_NAME = 64
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MOST_NAME - 1}}}")
_HUB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
MOST_FILE_NAME_BYTES = 255
"""Largest number of bytes in a file name, as the file systems of Linux and macOS allow."""
MOST_SHOWN = 200
"""Largest number of characters of a name that an error message quotes."""
FORMS = f"{BUILTIN_STORIES}, an uploaded dataset, a {', '.join(SUFFIXES)} file, or owner/name on the Hugging Face Hub"
RULE = f"use 1 to {MOST_NAME} letters, digits, '.', '_' and '-', first a letter or digit, without a file suffix"


def is_dataset_name(text: str) -> bool:
    """Return whether `text` has the form of an uploaded dataset's name."""
    return bool(_NAME.fullmatch(text)) and not text.lower().endswith((*SUFFIXES, GZIP_SUFFIX))


def is_file_name(source: str) -> bool:
    """Return whether a source is a path: it has the suffix of a corpus, or begins with `/`, `./`, `../` or `~`."""
    return source.lower().endswith((*SUFFIXES, GZIP_SUFFIX)) or source.startswith(("/", "./", "../", "~"))


def is_hub_name(source: str) -> bool:
    """Return whether a source is a Hugging Face dataset: not built in, not an uploaded dataset and not a path."""
    return not source.startswith(BUILTIN) and not is_file_name(source) and not is_dataset_name(source)


def source_problem(source: str) -> str | None:
    """Return why `source` can never be the name of a corpus and what to do, or None if it can be one."""
    finding = None
    if source.startswith(BUILTIN):
        finding = None if source == BUILTIN_STORIES else f"there is only {BUILTIN_STORIES}"
    elif "\0" in source or any(
        len(part.encode("utf-8", "surrogatepass")) > MOST_FILE_NAME_BYTES for part in source.split("/")
    ):
        finding = f"no file can have this name; a part of a path has at most {MOST_FILE_NAME_BYTES} bytes and no NUL"
    elif is_file_name(source) and split_name(source)[1] is None:
        finding = f"a local corpus is a file with suffix {', '.join(SUFFIXES)}, also gzipped"
        finding = file_name_problem(source) or finding
    elif is_hub_name(source) and not _HUB_NAME.fullmatch(source):
        finding = f"this is not the name of a corpus; write {FORMS}"
        finding = file_name_problem(source) or finding
    return None if finding is None else f"{shown(source)}: {finding}"


def shown(name: str) -> str:
    """Return a name for an error message: without control characters, cut after MOST_SHOWN characters."""
    return repr(name[:MOST_SHOWN])[1:-1]


def check_name(name: str, *, location: str = "query.name") -> str:
    """Return `name`; raise InvalidInputError, which names `location`, if it is not a valid name of a dataset."""
    if not is_dataset_name(name):
        suggestion = suggest_name(name)
        instead = f"; for example {suggestion!r}" if suggestion else ""
        message = f"{name[:80]!r} cannot be a dataset's name: {RULE}{instead}"
        raise InvalidInputError(message, errors=[{"location": location, "message": message}])
    return name


def suggest_name(text: str) -> str | None:
    """Return a valid name of a dataset similar to `text`, such as `my-stories` for `my stories.txt`, or None."""
    plain, _ = split_name(text)
    ascii_only = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", ascii_only)
    name = re.sub(r"^[^A-Za-z0-9]+", "", name)[:MOST_NAME].rstrip("._-")
    return name if is_dataset_name(name) else None


def split_name(text: str) -> tuple[str, str | None]:
    """Return name and format, such as `stories` and `jsonl` for `stories.jsonl.gz`; the format may be None."""
    name = text[: -len(GZIP_SUFFIX)] if text.lower().endswith(GZIP_SUFFIX) else text
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)], suffix[1:]
    return name, None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to `name`, or None if none is similar."""
    by_lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None
