"""Print a random sample of the prose in the code. A reader then checks that every sentence is clear when read once.

Each passage is printed in its place, as one reads it in the code: the signature above a docstring, the code around a
comment, the statement that contains a message. Lines of the passage begin with `>`, lines of source around it with `|`.

python -m scripts.sample_prose --seed 3 [--count 80]

The sample is uniform over docstrings, comments, log messages, error texts, help texts, printed lines and strings of the
dashboard (`scripts/prose/`); the same seed selects the same sample until the code changes. The script uses only the
standard library.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.prose import passages, source_files
from scripts.prose.passage import Passage
from scripts.prose.place import place


def sample(found: list[Passage], seed: int, count: int) -> list[Passage]:
    """Return `count` different passages, or all if there are fewer, sorted by file and line."""
    return sorted(random.Random(seed).sample(sorted(found), min(count, len(found))))


def in_its_place(passage: Passage, source: str) -> str:
    """Return the passage with its file, line, kind and definition, between the lines of source that surround it."""
    found = place(passage, source)
    owner = f" of {found.name}" if passage.kind == "docstring" else f" in {found.name}"
    heading = f"{passage.file}:{passage.line} ({passage.kind}{owner if found.name else ''})"
    parts = (("|", found.above), (">", found.shown), ("|", found.below))
    return "\n".join([heading, *(f"   {mark} {line}".rstrip() for mark, lines in parts for line in lines)])


def main() -> int:
    """Print the sample, one numbered passage after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True, help="seed of the random sample")
    parser.add_argument("--count", type=int, default=80, help="number of passages (default: 80)")
    chosen = parser.parse_args()
    files = source_files()
    found = passages(files)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(each.kind for each in found).items()))
    print(f"{len(found)} passages: {kinds}\n")
    for number, each in enumerate(sample(found, chosen.seed, chosen.count), 1):
        print(f"{number}. {in_its_place(each, files[each.file])}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
