"""What a corpus may be called: `builtin:stories`, a dataset, a file, or owner/name of a data set on the hub.

A dataset's name is a word that is no path, no file name and no name on the hub, so `data.source: my-stories` means one
thing only, and no name leads out of the folder. Leaves out where files may lie (`common.data.places`).
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable

from common.datasets.kinds import GZIP_SUFFIX, SUFFIXES, refusal_of_name
from common.errors import InvalidInputError

BUILTIN = "builtin:"
BUILTIN_STORIES = "builtin:stories"
MOST_NAME = 64
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MOST_NAME - 1}}}")
_HUB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
MOST_FILE_NAME_BYTES = 255
"""On the file systems of Linux and macOS."""
MOST_SHOWN = 200
"""Characters of a name that an error repeats."""
FORMS = f"{BUILTIN_STORIES}, a dataset, a {', '.join(SUFFIXES)} file, or owner/name of the hub"
RULE = f"1 to {MOST_NAME} letters, digits, '.', '_' and '-', beginning with a letter or digit, and no suffix of a file"


def is_dataset_name(text: str) -> bool:
    """Whether `text` has the form of a dataset's name."""
    return bool(_NAME.fullmatch(text)) and not text.lower().endswith((*SUFFIXES, GZIP_SUFFIX))


def is_file_name(source: str) -> bool:
    """Whether a source is a path, told by its suffix or by being absolute or relative to a folder."""
    return source.lower().endswith((*SUFFIXES, GZIP_SUFFIX)) or source.startswith(("/", "./", "../", "~"))


def is_hub_name(source: str) -> bool:
    """Whether a source is a data set on the hub: nothing else that it could be."""
    return not source.startswith(BUILTIN) and not is_file_name(source) and not is_dataset_name(source)


def refusal_of_source(source: str) -> str | None:
    """Why nothing can ever be found under `source`, and what to do; None for a name that may be a corpus."""
    finding = None
    if source.startswith(BUILTIN):
        finding = None if source == BUILTIN_STORIES else f"there is only {BUILTIN_STORIES}"
    elif "\0" in source or any(
        len(part.encode("utf-8", "surrogatepass")) > MOST_FILE_NAME_BYTES for part in source.split("/")
    ):
        finding = f"no file has such a name; a part of a path has at most {MOST_FILE_NAME_BYTES} bytes and no NUL"
    elif is_file_name(source) and split_name(source)[1] is None:
        finding = f"a local corpus is a file with suffix {', '.join(SUFFIXES)}, also gzipped"
        finding = refusal_of_name(source) or finding
    elif is_hub_name(source) and not _HUB_NAME.fullmatch(source):
        finding = f"names no corpus; write {FORMS}"
        finding = refusal_of_name(source) or finding
    return None if finding is None else f"{shown(source)}: {finding}"


def shown(name: str) -> str:
    """A name as an error repeats it: of bounded length, without control characters."""
    return repr(name[:MOST_SHOWN])[1:-1]


def check_name(name: str, *, location: str = "query.name") -> str:
    """`name` as it is; InvalidInputError when no dataset may be called so."""
    if not is_dataset_name(name):
        like = suggest_name(name)
        instead = f"; {like!r} would do" if like else ""
        message = f"{name[:80]!r} cannot be a dataset's name: {RULE}{instead}"
        raise InvalidInputError(message, errors=[{"location": location, "message": message}])
    return name


def suggest_name(text: str) -> str | None:
    """The dataset's name nearest to `text`, such as `my-stories` for `my stories.txt`; None where nothing is left."""
    plain, _ = split_name(text)
    ascii_only = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", ascii_only)
    name = re.sub(r"^[^A-Za-z0-9]+", "", name)[:MOST_NAME].rstrip("._-")
    return name if is_dataset_name(name) else None


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
