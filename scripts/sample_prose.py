"""Print a random sample of the prose in the code. A reader then checks that every sentence is clear when read once.

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


def sample(found: list[Passage], seed: int, count: int) -> list[Passage]:
    """Return `count` different passages, or all if there are fewer, sorted by file and line."""
    return sorted(random.Random(seed).sample(sorted(found), min(count, len(found))))


def main() -> int:
    """Print the sample, one numbered passage after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True, help="seed of the random sample")
    parser.add_argument("--count", type=int, default=80, help="number of passages (default: 80)")
    chosen = parser.parse_args()
    found = passages(source_files())
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(each.kind for each in found).items()))
    print(f"{len(found)} passages: {kinds}\n")
    for number, each in enumerate(sample(found, chosen.seed, chosen.count), 1):
        print(f"{number}. {each.file}:{each.line} ({each.kind})\n   {each.text}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
