"""The work of a training, counted by hand."""

from __future__ import annotations

from typing import Any

from common.config import load_lm_config
from common.prediction.plan import CorpusSize, TrainingPlan, plan_training


def plan(corpus: CorpusSize | None, first_step: int = 0, **sections: Any) -> TrainingPlan | None:
    base = {"d_model": 8, "num_heads": 2, "context_length": 9}
    training = {"effective_batch_size": 4, "micro_batch_size": 2, "epochs": 2, **sections.get("training", {})}
    evaluation = {"batch_size": 3, **sections.get("evaluation", {})}
    return plan_training(
        load_lm_config(None, {"model": base, "training": training, "evaluation": evaluation}), corpus, first_step
    )


def test_two_epochs_of_ten_chunks_are_six_steps_of_which_two_are_small() -> None:
    # 105 tokens are 10 chunks of 9 + 1 tokens: steps of 4, 4 and 2 sequences per epoch.
    # 52 tokens are 5 validation chunks.
    found = plan(CorpusSize(105, 52))
    assert found == TrainingPlan(
        steps=6,
        tokens=20 * 9,
        length=9,
        micro_batches=10,
        validations=2,  # after the first epoch, and at the end
        validation_tokens=5 * 9,
        initial_validation_tokens=5 * 9,
        samples=1,
    )


def test_several_corpora_are_divided_and_validated_one_by_one() -> None:
    # 105 and 57 tokens are 10 and 5 chunks; 52 and 21 tokens are 5 and 2 validation chunks.
    parts = (CorpusSize(105, 52), CorpusSize(57, 21))
    found = plan(CorpusSize(162, 73, parts=parts), evaluation={"max_batches": 1})
    assert found is not None
    assert (found.steps, found.tokens) == (8, 30 * 9)
    assert found.validation_tokens == (3 + 2) * 9


def test_limits_of_steps_and_batches_shorten_the_work() -> None:
    found = plan(CorpusSize(105, 52), training={"max_steps": 4}, evaluation={"every_steps": 1, "max_batches": 1})
    assert found is not None
    assert (found.steps, found.tokens, found.micro_batches) == (4, (10 + 4) * 9, 7)
    assert (found.validations, found.validation_tokens) == (4, 3 * 9)  # after the steps 1, 2 and 3, and at the end


def test_a_resumed_training_does_only_what_is_left() -> None:
    found = plan(CorpusSize(105, 52), 2)
    assert found is not None
    assert (found.steps, found.tokens, found.initial_validation_tokens) == (4, 12 * 9, 0)


def test_samples_are_generated_every_few_steps_and_at_the_end() -> None:
    counts = [plan(CorpusSize(105, 52), first, evaluation={"samples_every_steps": 2}) for first in (0, 2, 6)]
    # Of six steps, after the steps 2 and 4, and at the end.
    assert [found and found.samples for found in counts] == [3, 2, 1]


def test_without_the_size_of_the_corpus_both_limits_must_be_set() -> None:
    assert plan(None, training={"max_steps": 3}) is None
    assert plan(None, evaluation={"max_batches": 2}) is None
    found = plan(None, training={"max_steps": 3}, evaluation={"max_batches": 2})
    assert found is not None
    assert (found.steps, found.tokens, found.validation_tokens) == (3, 12 * 9, 6 * 9)
