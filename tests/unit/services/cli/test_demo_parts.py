"""The corpus that the demonstration chooses, and the output of the demonstration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from common.errors import InvalidInputError, NotFoundError
from common.metrics.names import LOSS, VALIDATION_LOSS
from services.cli.demo import corpus as demo_corpus
from services.cli.demo import report as demo_report
from tests.unit import api_documents as documents
from tidal_client import Generation, Metrics


def rendered(item: RenderableType) -> str:
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(item)
    return capture.get()


def metrics(**series: list[tuple[int, float]]) -> Metrics:
    names = {"loss": LOSS, "validation": VALIDATION_LOSS}
    listed = {names[key]: [{"step": s, "value": v} for s, v in points] for key, points in series.items()}
    return Metrics.model_validate(documents.metrics(series=listed))


def test_the_loss_before_is_the_untrained_one_and_after_the_last_validation() -> None:
    both = metrics(loss=[(1, 10.5), (9, 4.0)], validation=[(0, 10.8), (5, 6.0), (9, 4.9)])
    assert demo_report.losses(both) == (10.8, 4.9)
    without_zero = metrics(loss=[(1, 10.5), (9, 4.0)], validation=[(9, 4.9)])
    assert demo_report.losses(without_zero) == (10.5, 4.9)
    assert demo_report.losses(metrics()) == (None, None)
    assert "perplexity 134" in demo_report.loss_line(10.8, 4.9).plain  # e ** 4.9 = 134.29
    assert "perplexity 134, 1.53 bits per byte)" in demo_report.loss_line(10.8, 4.9, 1.534).plain


def test_the_ablation_table_shows_every_policy_and_pair_with_its_interval() -> None:
    def row(mean: float) -> dict[str, Any]:
        return {"mean": mean, "std": 0.1, "ci_low": mean - 0.01, "ci_high": mean + 0.01}

    result = {
        "policies": {
            name: {"total": row(mean), "modulation": row(0.5)}
            for name, mean in (("random", -0.3), ("learned", -0.1), ("fixed", -0.2), ("best_constant", -0.1))
        },
        "paired": {
            "learned_minus_best_constant": {"total": row(0.0), "verdict": "It did not beat the best constant."},
            "learned_minus_fixed": {"total": row(0.1), "verdict": "The learned controller beat fixed."},
        },
        "behaviour": {"verdict": "The controller behaves like the constant m = 0.04."},
    }
    text = rendered(demo_report.ablation_table(result))
    lines = [line for line in text.splitlines() if "…" in line]
    assert [line.split()[0] for line in lines] == [
        "learned",
        "best",
        "fixed",
        "random",
        "learned",
        "learned",
    ]
    assert "-0.1100 … -0.0900" in lines[0]
    assert "learned − best constant, paired" in lines[4]
    assert "learned − fixed, paired" in lines[5]
    assert "+0.0900 … +0.1100" in lines[5]
    assert demo_report.conclusions(result) == [
        "It did not beat the best constant.",
        "The learned controller beat fixed.",
        "The controller behaves like the constant m = 0.04.",
    ]


def test_a_story_shows_prompt_text_and_the_range_of_its_modulation() -> None:
    steps = [{"text": " a", "modulation": 0.25}, {"text": " cat", "modulation": 0.75}]
    reply = Generation(text=" a cat", tokens_generated=2, elapsed_ms=1.0, finish_reason="length", trajectory=steps)
    text = rendered(demo_report.story("learned", "There was", reply))
    assert "There was a cat" in text
    assert "modulation 0.25 … 0.75" in text


def test_times_add_up() -> None:
    text = rendered(demo_report.times_table({"start": 4.0, "pretraining": 200.0}))
    assert "3:20" in text
    assert "3:24" in text


def test_a_local_file_is_linked_into_the_data_folder_once(tmp_path: Path) -> None:
    source = tmp_path / "my text.txt"
    source.write_text("One day.")
    corpus = demo_corpus.choose_corpus(source)
    data_dir = tmp_path / "data"
    name = corpus.place(data_dir)
    assert (data_dir / name).read_text() == "One day."
    assert name.startswith("demo/")
    assert name.endswith("my text.txt")
    assert corpus.place(data_dir) == name
    assert len(list((data_dir / "demo").iterdir())) == 1
    source.unlink()
    source.write_text("Another day.")  # a new file with the same name but other content
    assert (data_dir / demo_corpus.choose_corpus(source).place(data_dir)).read_text() == "Another day."


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("absent.txt", None, NotFoundError, "no such file"),
        ("text.doc", "x", InvalidInputError, "a .doc file cannot be a corpus"),
        ("text.pdf", "x", InvalidInputError, "extract its text into a .txt file"),
        ("text.txt", "%PDF-1.7", InvalidInputError, "text.txt: this is a PDF"),
        ("text.jsonl", '["a"]', InvalidInputError, "line 1 is a JSON array"),
        ("empty.txt", "", InvalidInputError, "is empty"),
        (".", None, InvalidInputError, "is a folder"),
    ],
)
def test_a_file_that_cannot_be_learned_from_is_named(
    tmp_path: Path, name: str, content: str | None, error: type[Exception], message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(error, match=message):
        demo_corpus.choose_corpus(tmp_path / name)


def test_without_a_file_the_hub_is_used_if_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_corpus, "hub_reachable", lambda: False)
    assert demo_corpus.choose_corpus(None).source == "builtin:stories"
    monkeypatch.setattr(demo_corpus, "hub_reachable", lambda: True)
    chosen = demo_corpus.choose_corpus(None)
    assert chosen.source == "roneneldan/TinyStories"
    assert chosen.replacement is not None
    assert chosen.replacement.source == "builtin:stories"
