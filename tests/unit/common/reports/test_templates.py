"""Generated reports state exactly the given data, and name missing data."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from common.reports import (
    TEMPLATES,
    AnalysisFacts,
    CheckpointFacts,
    ExperimentFacts,
    MetricSummary,
    check_charts,
    generate_report,
    render_parts,
)

NOON = datetime(2026, 9, 1, 12, tzinfo=UTC)


def ends(first: float, last: float, lowest: float, highest: float, steps: tuple[int, int, int, int]) -> MetricSummary:
    return MetricSummary(steps[0], first, steps[1], last, lowest, steps[2], highest, steps[3], 100)


MODEL = ExperimentFacts(
    id="exp-1",
    type="lm",
    name="Tide *pool*",
    status="completed",
    created_at=NOON,
    finished_at=NOON,
    step=1500,
    total_steps=1500,
    attempts=2,
    config={"training.learning_rate": 0.002, "training.max_steps": 1500, "data.source": "a|b", "model.heads": 4},
    defaults={"training.learning_rate": 0.001, "training.max_steps": 1500, "model.heads": 4},
    metrics={
        "Losses/Total": ends(10.5, 1.75, 1.5, 10.5, (1, 1500, 1400, 1)),
        "Losses/Validation": ends(9.0, 1.8, 1.8, 9.0, (1, 1500, 1500, 1)),
        "Perplexity/Validation": ends(8103.0, 6.05, 6.05, 8103.0, (1, 1500, 1500, 1)),
    },
    checkpoints=[CheckpointFacts("model.safetensors", "model", 1500, 1_500_000, best=True)],
    evaluation={"validation_loss": 1.8, "samples": [{"prompt": "Once", "generated": "Once <b>upon</b>\n\n# a time"}]},
)
CONTROLLER = ExperimentFacts(
    id="rl-1",
    type="rl",
    name="Helmsman",
    status="completed",
    created_at=NOON,
    step=4096,
    total_steps=4096,
    attempts=1,
    config={"rl.ppo.learning_rate": 0.0003},
    defaults={"rl.ppo.learning_rate": 0.0003},
    metrics={
        "episode_reward": ends(-1.0, 4.5, -1.25, 5.0, (128, 4096, 256, 4000)),
        "entropy": ends(-0.1, -0.6, -0.6, -0.1, (128, 4096, 4096, 128)),
        "modulation_mean": ends(0.5, 0.25, 0.25, 0.5, (128, 4096, 4096, 128)),
        "modulation_std": ends(0.2, 0.005, 0.005, 0.2, (128, 4096, 4096, 128)),
        "reward/diversity": ends(0.3, 0.4, 0.3, 0.4, (128, 4096, 128, 4096)),
    },
)


def row(mean: float, half: float) -> dict[str, Any]:
    return {"total": {"mean": mean, "ci_low": mean - half, "ci_high": mean + half}, "modulation": {"mean": 0.4}}


def ablation(**differences: tuple[float, float]) -> dict[str, Any]:
    return {
        "policies": {"learned": row(0.125, 0.0625), "random": row(0.0625, 0.03125), "fixed": row(0.125, 0.0625)},
        "paired": {f"learned_minus_{name}": row(*figures) for name, figures in differences.items()},
        "conditions": {"prompts": 200, "max_length": 50, "fixed_modulation": 0.5, "seed": 7},
    }


def made(pattern: str, *facts: ExperimentFacts) -> str:
    _, text = generate_report(pattern, facts)
    check_charts(text)
    return text


def test_an_overview_contains_what_is_stored() -> None:
    text = made("experiment-overview", MODEL)
    for statement in (
        "| Experiment | [Tide \\*pool\\*](#/experiments/exp-1) |",
        "2 of 4 stored settings differ from their defaults.",
        "| `training.learning_rate` | `0.002` | `0.001` |",
        "| `data.source` | `a\\|b` | none |",
        "It has completed at step 1,500 of 1,500. It took 2 attempts.",
        "The training loss fell from 10.5 (step 1) to 1.75 (step 1,500). Its lowest value was 1.5 at step 1,400.",
        "The validation loss fell from 9 (step 1) to 1.8 (step 1,500). This is the lowest value. "
        "The last validation perplexity is 6.05.",
        '"metrics": ["Losses/Total", "Losses/Validation"]',
        "| `model.safetensors` (best) | model | 1,500 | 1.5 MB |",
        "| validation loss | 1.8 |",
        "> **Once** \\<b\\>upon\\</b\\> \\# a time",
    ):
        assert statement in text
    assert "heads" not in text
    assert generate_report("experiment-overview", [MODEL])[0] == "Overview: Tide *pool*"


def test_a_report_states_what_is_missing() -> None:
    bare = ExperimentFacts(id="exp-2", type="lm", status="failed", created_at=NOON, error="diverged: loss is NaN")
    text = made("full-report", bare)
    for statement in (
        "No configuration is stored with this experiment.",
        "It failed; no step is recorded.",
        "Error: diverged: loss is NaN",
        "No training loss is recorded.",
        "No validation loss is recorded.",
        "There are no checkpoints.",
        "There is no evaluation.",
        "No analysis is saved with this experiment",
    ):
        assert statement in text
    assert "chart" not in text
    assert "in which no controller is trained" in made("rl-analysis", bare)
    silent = made("rl-analysis", replace(bare, type="rl"))
    for what in (
        "This experiment has no ablation",
        "No reward is recorded",
        "No entropy is recorded",
        "No modulation is",
    ):
        assert what in silent


def test_a_report_states_that_a_controller_won_and_no_more() -> None:
    text = made(
        "rl-analysis", replace(CONTROLLER, ablation=ablation(random=(0.0625, 0.03125), fixed=(0.0625, 0.03125)))
    )
    assert "**Yes, against these baselines:**" in text
    assert "it beat random; it beat fixed" in text
    assert "another constant may still beat the controller" in text
    assert "| learned − random | +0.0625 | +0.03125 to +0.09375 |" in text
    assert "| learned | 0.125 | 0.0625 to 0.1875 | 0.4 | – |" in text
    assert "Conditions: 200 prompts, episodes of at most 50 tokens, fixed modulation m = 0.5, seed 7." in text


def test_a_report_names_the_best_constant_and_a_controller_that_behaves_like_one() -> None:
    found = ablation(best_constant=(-0.0625, 0.03125), fixed=(0.0625, 0.03125))
    found["policies"]["best_constant"] = row(0.125, 0.0625)
    found["best_constant"] = {"modulation": 0.2, "grid": []}
    found["behaviour"] = {"constant": True, "verdict": "The controller behaves like the constant m = 0.0397: …"}
    found["conditions"]["development_prompts"] = 100
    text = made("rl-analysis", replace(CONTROLLER, ablation=found))
    assert "**No: the controller did not beat all of its baselines.**" in text
    assert "it did worse than best constant; it beat fixed" in text
    assert "The controller behaves like the constant m = 0.0397" in text
    assert "| best constant | 0.125 |" in text and "| learned − best constant | −0.0625 |" in text
    assert "best constant m = 0.2, chosen on 100 other prompts, seed 7." in text
    won = made("rl-analysis", replace(CONTROLLER, ablation=ablation(best_constant=(0.5, 0.25))))
    assert "**Yes, against these baselines:**" in won and "another constant" not in won


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ({"random": (0.5, 0.25), "fixed": (0.0, 0.25)}, "did not beat all of its baselines"),
        ({"random": (0.5, 0.25), "fixed": (-0.5, 0.25)}, "it beat random; it did worse than fixed"),
        # The interval of learned − random contains 0; that of learned − fixed begins at 0.
        ({"random": (0.125, 0.25), "fixed": (0.25, 0.25)}, "did not beat its baselines"),
    ],
)
def test_a_report_states_that_a_controller_did_not_win(
    differences: dict[str, tuple[float, float]], expected: str
) -> None:
    text = made("rl-analysis", replace(CONTROLLER, ablation=ablation(**differences)))
    assert "**No: the controller did not beat" in text and expected in text
    assert "**Yes" not in text


def test_an_ablation_without_differences_or_of_another_shape_decides_nothing() -> None:
    for found in (ablation(), {"policies": [1], "paired": {"learned_minus_fixed": {"total": {"ci_low": "x"}}}}, {}):
        text = made("rl-analysis", replace(CONTROLLER, ablation=found))
        assert "**It is not known whether the controller helps:**" in text


def test_the_training_of_a_controller_is_described_from_its_metrics() -> None:
    text = made("rl-analysis", CONTROLLER)
    for statement in (
        "The moving average of the episodes' reward rose from −1 (step 128) to 4.5 (step 4,096). "
        "Its highest value was 5 at step 4,000.",
        "The deterministic policy was not evaluated during the training.",
        "The entropy of the policy in nats fell from −0.1 (step 128) to −0.6 (step 4,096).",
        "within the last recorded rollout is 0.005: the policy acts almost like a constant.",
        "| diversity | 0.3 | 0.4 |",
    ):
        assert statement in text


SUMMARY = {"mean": 0.25, "std": 0.125, "min": 0.0, "max": 0.5}
ANALYSIS = AnalysisFacts(
    id="ana_abc",
    kind="batch",
    name="first look",
    created_at=NOON,
    result={
        "request": {"prompts": ["Tom", ""], "checkpoint": "exp-1/final", "gatingMode": "random", "seed": 3},
        "trajectories": [
            {
                "prompt": prompt,
                "analysis": {
                    "signalStats": {"modulation": SUMMARY},
                    "phases": [{"windowBoundary": "Q1→Q2", "tStatistic": -4.25}] if prompt else [],
                },
                "samples": [],
            }
            for prompt in ("Tom", "")
        ],
        "batchAnalysis": {
            "crossPromptVariance": {
                "modulation": {
                    "betweenPromptVar": 0.001,
                    "withinPromptVar": 0.0625,
                    "confidenceIntervals": {"betweenPromptVar": [0.0005, 0.002]},
                }
            },
            "strategyCharacterization": {"modulation": {"globalMean": 0.25, "globalStd": 0.03}},
        },
        "sweepAnalysis": {
            "prompts": [{"prompt": "Tom", "statistics": {m: {"wordCount": 4} for m in ("0.0", "0.5", "1.0")}}],
            "meanDeltas": {"wordCount": -2.0},
        },
    },
)


def test_each_saved_analysis_is_described() -> None:
    text = made("trajectory-report", replace(MODEL, analyses=[ANALYSIS], analyses_total=12))
    for statement in (
        "12 analyses are saved; these are the newest 1.",
        "Analysis first look",
        "Kind batch, 2 prompts, model `exp-1/final`, gating random, seed 3; saved 2026-09-01 12:00 UTC as `ana_abc`.",
        "| Tom | 0.25 | 0.125 | 0 | 0.5 | Q1→Q2 (t −4.25) |",
        "| (new document) | 0.25 | 0.125 | 0 | 0.5 | none |",
        "| Variance between prompts | 0.001 | 5.00e-4 to 0.002 |",
        "The modulation does not vary more between prompts than within them.",
        "| Tom | Words | 4 | 4 | 4 |",
        "Mean change from m = 0 to m = 1: words −2.",
        '{"kind": "trajectory", "title": "Modulation: Tom", "analysis": "ana_abc", "prompt": 1}',
        '{"kind": "sweep", "title": "Words by modulation", "analysis": "ana_abc", "measure": "wordCount"}',
    ):
        assert statement in text


def test_an_analysis_of_another_shape_does_not_stop_a_report() -> None:
    strange: dict[str, Any] = {
        "trajectories": [{"analysis": 3}, 4],
        "batchAnalysis": {},
        "sweepAnalysis": {"prompts": 1},
    }
    assert ANALYSIS.id in made("trajectory-report", replace(MODEL, analyses=[replace(ANALYSIS, result=strange)]))


def test_several_experiments_are_compared_first() -> None:
    other = replace(MODEL, id="exp-3", name="Other")
    title, text = generate_report("experiment-overview", [MODEL, other, CONTROLLER])
    check_charts(text)
    assert title == "Overview: Tide *pool* and 2 more"
    assert text.startswith("## Side by side")
    assert "| [Other](#/experiments/exp-3) | language model | completed | 1,500 | 1.75 | 1.8 | – |" in text
    assert '{"title": "Validation loss", "experiments": ["exp-1", "exp-3"], "metrics": ["Losses/Validation"]}' in text
    assert '"metrics": ["episode_reward"]' in text.split("## Helmsman")[1]
    assert "### Configuration" in text


@pytest.mark.parametrize("pattern", TEMPLATES)
def test_hostile_names_are_text(pattern: str) -> None:
    hostile = "# a\n```chart\n[x](javascript:alert(1)) | <script>"
    facts = replace(
        CONTROLLER,
        name=hostile,
        tags=[hostile],
        notes=hostile,
        error=hostile,
        config={hostile: hostile},
        ablation=ablation(random=(0.0, 1.0)),
        evaluation={hostile: 1.0, "samples": [{"prompt": hostile, "generated": hostile}]},
        checkpoints=[CheckpointFacts(hostile, "model")],
        analyses=[replace(ANALYSIS, name=hostile, result={**ANALYSIS.result, "request": {"gatingMode": hostile}})],
    )
    text = made(pattern, facts)
    html = "".join(getattr(part, "html", "") for part in render_parts(text))
    assert "<script" not in html and "<h1" not in html and 'href="javascript' not in html


def test_a_report_of_many_experiments_leaves_charts_out_and_mentions_it() -> None:
    facts = replace(CONTROLLER, ablation=ablation(random=(0.5, 0.25)), analyses=[ANALYSIS] * 8)
    assert made("full-report", facts).count("```chart") <= 40
    text = made("full-report", *(replace(facts, id=f"rl-{n}") for n in range(8)))
    assert text.count("```chart") == 40
    assert "*A chart is left out here, because a report can contain at most 40 charts.*" in text


def test_the_full_report_holds_all_of_the_others() -> None:
    facts = replace(CONTROLLER, ablation=ablation(random=(0.5, 0.25)), analyses=[ANALYSIS])
    headings = [line for line in made("full-report", facts).split("\n") if line.startswith("## ")]
    for pattern in ("experiment-overview", "rl-analysis", "trajectory-report"):
        assert {line for line in made(pattern, facts).split("\n") if line.startswith("## ")} <= set(headings)


def test_a_report_states_that_a_training_diverged_and_a_single_point_has_no_lowest() -> None:
    once = MetricSummary(0, 10.8, 0, 10.8, 10.8, 0, 10.8, 0, 1)
    diverged = replace(
        MODEL,
        status="failed",
        error="training_diverged: Training diverged at update 2",
        metrics={"Losses/Validation": once},
        diverged={"Losses/Total": 2},
    )
    _, text = generate_report("experiment-overview", [diverged])
    assert "**The training diverged at step 2.** Not finite (NaN or infinity): `Losses/Total` from step 2 on." in text
    assert "No finite training loss is recorded." in text
    assert "lowest" not in text
    _, both = generate_report("experiment-overview", [diverged, MODEL])
    assert "failed, diverged at step 2" in both
    controller = replace(CONTROLLER, diverged={"policy_loss": 96})
    assert "**The training diverged at step 96.**" in generate_report("rl-analysis", [controller])[1]
