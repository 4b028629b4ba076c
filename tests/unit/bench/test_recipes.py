"""The bench of recipes plans its runs, continues a journal and computes its figures as documented."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.recipes import journal
from bench.recipes.arms import ARMS, SEEDS
from bench.recipes.campaign import Run, Setup, best_tuned, final_runs, missing, score, speed, speed_runs, tuning_runs
from bench.recipes.report import interval, report, tokens_ratio, tokens_to_reach
from bench.recipes.run_one import configuration
from common.config import PROJECT_ROOT, DataConfig, load_lm_config

SETUP = Setup(texts="digest", entries=0)


def result(bits: float, *, tokens: int = 100) -> dict[str, Any]:
    values = {"loss": bits * 3, "bits_per_byte": bits, "tuning_bits_per_byte": bits}
    return {
        "curve": [[tokens // 2, 1.0, bits * 3 + 1, bits + 1], [tokens, 2.0, bits * 3, bits]],
        "final": values,
        "best": values,
        "tokens": tokens,
        "seconds": 2.0,
        "tokens_per_second": tokens / 2.0,
        "bytes_per_second": 50.0,
    }


def with_speed(*names: str) -> dict[str, dict[str, Any]]:
    """Return results of the runs that measure the speed of these arms: 500, 1,000 and 1,500 tokens/s in the rounds."""
    runs = [run for name in names for run in speed_runs(SETUP, ARMS[name])]
    return {run.key: result(2.0, tokens=1000 * run.seed) for run in runs}


def first_run(setup: Setup, name: str) -> Run:
    """Return the first run of an arm."""
    return next(missing(setup, [ARMS[name]], {}))


def test_an_arm_is_tuned_before_its_seeds_are_trained_with_the_best_setting() -> None:
    arm = ARMS["modern"]
    tuning = tuning_runs(SETUP, arm)
    assert len({(run.rate, run.batch) for run in tuning}) == 10
    results = {run.key: result(2.0 + number / 100) for number, run in enumerate(tuning)}
    results[tuning[7].key] = result(1.0)
    assert best_tuned(SETUP, arm, results) == tuning[7]
    finals = final_runs(SETUP, arm, results)
    assert finals is not None
    assert [(run.rate, run.batch, run.seed) for run in finals] == [(tuning[7].rate, tuning[7].batch, s) for s in SEEDS]
    del results[tuning[3].key]
    assert final_runs(SETUP, arm, results) is None
    assert [run.key for run in missing(SETUP, [arm], results)] == [tuning[3].key]


def test_a_diverged_run_is_never_the_best() -> None:
    arm = ARMS["gpt2"]
    tuning = tuning_runs(SETUP, arm)
    results: dict[str, dict[str, Any]] = {run.key: {"diverged": True} for run in tuning}
    results[tuning[4].key] = result(3.0)
    assert best_tuned(SETUP, arm, results) == tuning[4]


def test_arms_with_the_same_settings_share_their_runs() -> None:
    own, plain = ARMS["vocabulary-own"], ARMS["adamw-decay-0.1"]
    measured = with_speed("vocabulary-own")
    tuning = [run.key for run in tuning_runs(SETUP, own, measured)]
    assert tuning == [run.key for run in tuning_runs(SETUP, plain, measured)]
    assert [run.key for run in missing(SETUP, [own, plain], measured)] == tuning and len(tuning) == 10


def test_the_budget_of_time_is_the_steps_at_the_measured_speed() -> None:
    arm, other = ARMS["own-text"], ARMS["adamw-decay-0.1"]
    speeds = list(missing(SETUP, [arm, other], {}))
    assert {run.stage for run in speeds} == {"speed"} and len(speeds) == 3 * 2 * 2
    assert [(run.arm, run.batch) for run in speeds[:4]] == [
        ("own-text", 8),
        ("own-text", 32),
        ("adamw-decay-0.1", 8),
        ("adamw-decay-0.1", 32),
    ]
    results = with_speed("own-text")
    assert not list(missing(SETUP, [arm], results, until="speed"))
    del results[next(key for key, value in results.items() if value["tokens_per_second"] == 500)]
    assert speed(SETUP, arm, 8, results) is None and tuning_runs(SETUP, arm, results) == []
    results = with_speed("own-text")
    assert speed(SETUP, arm, 8, results) == 1000
    steps = {run.batch: run.request["config"]["training"]["max_steps"] for run in tuning_runs(SETUP, arm, results)}
    assert steps == {8: round(1000 * 600 / (8 * 256)), 32: round(1000 * 600 / (32 * 256))}


def test_the_journal_continues_after_a_killed_process(tmp_path: Path) -> None:
    path, arm = tmp_path / "out.jsonl", ARMS["modern"]
    first, second, *_ = tuning_runs(SETUP, arm)
    journal.append(path, SETUP, first, result(2.0))
    with path.open("a") as file:
        file.write('{"key": "half a li')
    journal.append(path, SETUP, second, result(3.0))
    assert journal.read_results(path) == {first.key: result(2.0), second.key: result(3.0)}
    other = Setup(texts="digest", entries=0, threads=1)
    for setup in (other, SETUP, other):
        journal.append(path, setup, first, result(2.0))
    assert journal.read_setups(path) == [SETUP, other]


def test_every_arm_is_a_valid_configuration() -> None:
    for arm in ARMS.values():
        request = {**first_run(SETUP, arm.name).request, "train": "/a.txt", "valid": "/b.txt"}
        config = configuration(json.loads(json.dumps(request)))
        assert config.model.num_layers == 3, arm.name
        assert (config.data.source, config.data.validation_source) == ("/a.txt", "/b.txt")
        assert (config.training.max_seconds is None) == (arm.unit == "tokens")


def test_the_tokens_to_a_loss_are_interpolated() -> None:
    curve = [(100, 0.0, 5.0, 0.0), (200, 0.0, 4.0, 0.0), (300, 0.0, 4.5, 0.0), (400, 0.0, 3.0, 0.0)]
    assert tokens_to_reach(curve, 6.0) == 100
    assert tokens_to_reach(curve, 4.25) == pytest.approx(175)
    assert tokens_to_reach(curve, 3.5) == pytest.approx(300 + 100 * 1.0 / 1.5)
    assert tokens_to_reach(curve, 2.0) is None
    assert tokens_ratio(result(2.0, tokens=60), result(2.0)) == pytest.approx(0.6)


def test_the_interval_is_students() -> None:
    # Mean 2, standard deviation 1, 97.5 % quantile with 2 degrees of freedom 4.303.
    low, high = interval([1.0, 2.0, 3.0]) or (0.0, 0.0)
    assert (low, high) == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5))
    assert interval([1.0]) is None


def test_the_report_compares_the_arms_with_the_bounds() -> None:
    results: dict[str, dict[str, Any]] = {}
    for name, bits in (("modern", 2.0), ("gpt2", 2.5)):
        results |= {run.key: result(bits) for run in tuning_runs(SETUP, ARMS[name])}
        finals = final_runs(SETUP, ARMS[name], results)
        assert finals is not None
        results |= {run.key: result(bits, tokens=50 if name == "modern" else 100) for run in finals}
    text = report(SETUP, [ARMS["modern"], ARMS["gpt2"]], results)
    # modern falls from loss 7 at 25 tokens to 6 at 50 tokens; the peer ends at 7.5 after 100.
    assert "| tokens to the peer's final loss | modern | gpt2 | 0.250 | 0.250 to 0.250 | ≤ 0.6 | yes |" in text
    assert "| own-text | adamw-decay-0.1 | | | ≤ 0.97 | not measured |" in text


def test_the_recipes_that_are_measured_are_the_shipped_presets() -> None:
    for name in ("modern", "own-text"):
        preset = load_lm_config(PROJECT_ROOT / f"configs/presets/lm-{name}.yaml").model_dump(mode="json")
        request = {**first_run(Setup(texts="digest"), name).request, "train": "/a", "valid": "/b"}
        arm = configuration(request).model_dump(mode="json")
        varied = {"name", "depth", "d_model", "num_layers", "num_heads", "ffn_dim", "context_length", "gates"}
        varied |= {"dropout"} if name == "own-text" else set()
        assert {field for field in arm["model"] if arm["model"][field] != preset["model"][field]} <= varied
        assert arm["data"]["tokenizer"] == preset["data"]["tokenizer"]
        for field in ("optimizer", "schedule", "decay_ratio", "min_learning_rate", "warmup_ratio", "average_decay"):
            assert arm["training"][field] == preset["training"][field], field


def test_the_key_of_a_run_contains_its_number_format() -> None:
    training = tuning_runs(SETUP, ARMS["modern"])[0].request["config"]["training"]
    assert (training["precision"], training["compile"]) == ("float32", "off")


def test_a_verdict_needs_all_seeds_and_counts_divergence() -> None:
    results: dict[str, dict[str, Any]] = {}
    for name, bits in (("modern", 2.0), ("gpt2", 2.5)):
        results |= {run.key: result(bits) for run in tuning_runs(SETUP, ARMS[name])}
    ours, peer = (final_runs(SETUP, ARMS[name], results) or [] for name in ("modern", "gpt2"))
    results |= {run.key: result(2.5) for run in peer} | {ours[0].key: result(2.0)}

    def line() -> str:
        text = report(SETUP, [ARMS["modern"], ARMS["gpt2"]], results)
        return next(line for line in text.splitlines() if "peer's final loss" in line)

    assert line().endswith("incomplete, 1 of 3 seeds |")
    results |= {run.key: {"diverged": True} for run in ours[1:]}
    assert "| inf | " in line() and line().endswith("NO |")


def test_the_tuning_and_the_report_read_different_halves_of_whole_documents(tmp_path: Path) -> None:
    from bench.recipes.measures import halves
    from common.data import open_corpus

    (tmp_path / "valid.txt").write_text("\n<|endoftext|>\n".join(["one two three"] * 3 + ["four"] * 2))
    source = str(tmp_path / "valid.txt")
    corpus = open_corpus(DataConfig(source=source, validation_source=source), data_dir=tmp_path)
    first, second = halves(corpus)
    assert [*first, *second] == [*corpus.validation[0 : len(corpus.validation)]]
    assert first[-1] == corpus.vocabulary.end_of_text_id
    assert 0 < len(second) <= len(first) < len(corpus.validation)


def test_an_arm_is_tuned_by_the_first_half() -> None:
    arm, given = ARMS["modern"], result(2.0)
    given["final"] = {**given["final"], "tuning_bits_per_byte": 1.5}
    assert (score(arm, given, "tuning"), score(arm, given)) == (1.5, 2.0)
