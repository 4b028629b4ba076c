"""The command line of `bench.recipes`; see the docstring of the package."""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, get_args

from bench.recipes import journal
from bench.recipes.arms import ARMS, Arm
from bench.recipes.campaign import Run, Setup, Stage, Texts, best_tuned, missing, score
from bench.recipes.report import report
from common.config.compute_environment import with_compute_environment

TIME_MARGIN = 1.2
"""A run is started only if the time that is left is longer than the longest run so far, times this."""


def main() -> int:
    """Run the missing runs, or print the report."""
    options = _parser().parse_args()
    if options.self_test:
        return _self_test()
    if options.out is None:
        raise SystemExit("give --out FILE, or --self-test")
    arms = _chosen(options.arms)
    if options.report:
        results = journal.read_results(options.out)
        print("\n\n".join(report(setup, arms, results) for setup in journal.read_setups(options.out)))
        return 0
    if options.train is None or options.valid is None:
        raise SystemExit("give --train FILE and --valid FILE, texts with documents separated by <|endoftext|>")
    texts = Texts(options.train.resolve(), options.valid.resolve())
    setup = Setup(
        texts=texts.digest(),
        depth=options.depth,
        entries=options.vocabulary,
        tokens=options.budget_tokens,
        seconds=options.budget_seconds,
        tuning_share=options.tuning_share,
        threads=options.threads,
        run_threads=options.run_threads,
        every_tokens=max(1, options.budget_tokens // 20),
    )
    stop_at = math.inf if options.stop_after is None else time.monotonic() + options.stop_after
    with tempfile.TemporaryDirectory(prefix="tidal-recipes-") as temporary:
        data_dir = Path(temporary) if options.data_dir is None else options.data_dir
        data_dir.mkdir(parents=True, exist_ok=True)
        failed = _work(setup, texts, arms, options.out, data_dir, stop_at, options.jobs, until=options.until)
    results = journal.read_results(options.out)
    left = len(list(missing(setup, arms, results, until=options.until)))
    print(report(setup, arms, results))
    print(f"{left} runs can be done next" if left else "all runs are done", file=sys.stderr)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.recipes", description=__doc__)
    parser.add_argument("--train", type=Path, help="text to train on, documents separated by <|endoftext|>")
    parser.add_argument("--valid", type=Path, help="text to validate on")
    parser.add_argument("--out", type=Path, help="file with one line of JSON per finished run; a rerun continues it")
    parser.add_argument(
        "--data-dir", type=Path, help="folder of the token cache, kept between calls; default: temporary"
    )
    parser.add_argument("--arms", default="", help=f"comma-separated arms; default: all of {', '.join(ARMS)}")
    parser.add_argument(
        "--until",
        choices=get_args(Stage),
        default="final",
        help="last stage; measure the speed on an otherwise idle machine, the rest beside any work",
    )
    parser.add_argument("--report", action="store_true", help="print the results so far; needs only --out")
    parser.add_argument("--self-test", action="store_true", help="run everything with tiny budgets on built-in stories")
    parser.add_argument("--depth", type=int, default=3, help="model.depth of all arms (default 3: 1.3 M weights)")
    parser.add_argument("--vocabulary", type=int, default=4096, help="entries of the text's vocabulary; 0: GPT-2's")
    parser.add_argument("--budget-tokens", type=int, default=2_000_000, help="tokens per run (default 2,000,000)")
    parser.add_argument("--budget-seconds", type=float, default=600.0, help="seconds per run by time (default 600)")
    parser.add_argument("--tuning-share", type=float, default=1.0, help="share of the budget for a run of the tuning")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads that measure the speed")
    parser.add_argument("--run-threads", type=int, default=1, help="CPU threads of each of the other runs")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time; those of the speed run alone")
    parser.add_argument("--stop-after", type=float, help="seconds after which no further run is started")
    return parser


def _chosen(text: str) -> list[Arm]:
    names = [name.strip() for name in text.split(",") if name.strip()] or list(ARMS)
    unknown = [name for name in names if name not in ARMS]
    if unknown:
        raise SystemExit(f"--arms: unknown {', '.join(unknown)}; the arms are {', '.join(ARMS)}")
    return [ARMS[name] for name in names]


def _work(
    setup: Setup,
    texts: Texts,
    arms: Sequence[Arm],
    out: Path,
    data_dir: Path,
    stop_at: float,
    jobs: int,
    *,
    until: Stage,
) -> int:
    """Do the missing runs until none is left or the time is used up; return how many failed."""
    results, failed, longest = journal.read_results(out), 0, 0.0
    running: dict[Future[tuple[dict[str, Any] | None, float]], Run] = {}
    tried: set[str] = set()
    with ThreadPoolExecutor(jobs) as pool:
        while True:
            for run in missing(setup, arms, results, until=until):
                alone = run.stage == "speed" or any(other.stage == "speed" for other in running.values())
                if len(running) >= (1 if alone else jobs) or time.monotonic() + TIME_MARGIN * longest > stop_at:
                    break
                if run.key not in tried:
                    tried.add(run.key)
                    running[pool.submit(_execute, setup, run, texts, data_dir)] = run
            if not running:
                return failed
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                run = running.pop(future)
                result, seconds = future.result()
                longest = max(longest, seconds)
                if result is None:
                    failed += 1
                    continue
                results[run.key] = result
                journal.append(out, setup, run, result)
                _print_progress(setup, arms, run, result, seconds, results, until=until)


def _execute(setup: Setup, run: Run, texts: Texts, data_dir: Path) -> tuple[dict[str, Any] | None, float]:
    """Train in a process of its own; return the result, or None if the process failed, and its seconds."""
    started = time.monotonic()
    environment = with_compute_environment(os.environ) | {
        "OMP_NUM_THREADS": str(setup.threads if run.stage == "speed" else setup.run_threads)
    }
    request = {
        **run.request,
        "train": str(texts.train),
        "valid": str(texts.valid),
        "data_dir": str(data_dir.resolve()),
    }
    done = subprocess.run(
        [sys.executable, "-m", "bench.recipes.run_one"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env=environment,
    )
    seconds = time.monotonic() - started
    if done.returncode:
        print(f"{_name(run)} failed:\n{done.stderr[-2000:]}", file=sys.stderr, flush=True)
        return None, seconds
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result, seconds


_printing = threading.Lock()


def _print_progress(
    setup: Setup,
    arms: Sequence[Arm],
    run: Run,
    result: dict[str, Any],
    seconds: float,
    results: dict[str, dict[str, Any]],
    *,
    until: Stage,
) -> None:
    left = len(list(missing(setup, arms, results, until=until)))
    text = f"{_name(run)}: {_figure(run, result)}, {seconds:.0f} s, {left} left"
    best = best_tuned(setup, ARMS[run.arm], results)
    if run.stage == "tuning" and best is not None:
        text += f"; tuned: learning rate {best.rate:g}, batch {best.batch}"
    with _printing:
        print(text, file=sys.stderr, flush=True)


def _figure(run: Run, result: dict[str, Any]) -> str:
    if run.stage == "speed":
        return f"{result['tokens_per_second']:,.0f} tokens/s"
    return f"{score(ARMS[run.arm], result, run.stage):.4f} bits per byte"


def _name(run: Run) -> str:
    return f"{run.arm} {run.stage} rate {run.rate:g} batch {run.batch} seed {run.seed}"


def _self_test() -> int:
    """Run three arms with tiny budgets on built-in stories, continue the finished file, and print the report."""
    from common.data.stories import story

    arms = [ARMS[name] for name in ("gpt2", "modern", "own-text")]
    with tempfile.TemporaryDirectory(prefix="tidal-recipes-") as temporary:
        folder = Path(temporary)
        for name, first, count in (("train", 0, 20), ("valid", 500, 3)):
            stories = [story(number) for number in range(first, first + count)]
            (folder / f"{name}.txt").write_text("\n<|endoftext|>\n".join(stories), encoding="utf-8")
        texts = Texts(folder / "train.txt", folder / "valid.txt")
        setup = Setup(
            texts=texts.digest(),
            depth=1,
            context=32,
            entries=0,
            tokens=2048,
            seconds=2.0,
            speed_seconds=1.0,
            speed_rounds=1,
            threads=1,
            curve_tokens=512,
            every_tokens=512,
            rate_factors=(1.0, 2.0),
            batches=(4,),
            seeds=(11,),
        )
        out = folder / "out.jsonl"
        failed = _work(setup, texts, arms, out, folder, math.inf, os.cpu_count() or 1, until="final")
        results = journal.read_results(out)
        again = list(missing(setup, arms, results))
        print(report(setup, arms, results))
        print(f"{len(results)} runs, {failed} failed, {len(again)} missing", file=sys.stderr)
        return 1 if failed or again else 0


if __name__ == "__main__":
    sys.exit(main())
