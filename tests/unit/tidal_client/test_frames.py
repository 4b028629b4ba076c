"""Replies become data frames if pandas is installed, and without it the error names it."""

from __future__ import annotations

import math
import sys

import pytest

from tests.unit import api_documents as documents
from tidal_client import Metrics, SampleHistory, experiments_frame, metrics_frame, samples_frame
from tidal_client.wire.experiment import ExperimentReply


def test_metrics_are_columns_and_steps_the_index() -> None:
    series = {
        "loss": [{"step": 1, "value": 3.0}, {"step": 3, "value": 2.0}],
        "rate": [{"step": 2, "value": 0.5}, {"step": 3, "value": 0.25}],
    }
    frame = metrics_frame(Metrics.model_validate(documents.metrics(keys=["rate", "loss", "none"], series=series)))
    assert list(frame.columns) == ["rate", "loss", "none"]
    assert (frame.index.name, list(frame.index)) == ("step", [1, 2, 3])
    assert frame["loss"].dropna().to_dict() == {1: 3.0, 3: 2.0}
    assert frame["rate"].dropna().to_dict() == {2: 0.5, 3: 0.25}
    assert all(map(math.isnan, frame["none"])) and str(frame["none"].dtype) == "float64"
    assert metrics_frame(Metrics.model_validate(documents.metrics())).empty


def test_experiments_are_rows() -> None:
    found = [ExperimentReply.model_validate(documents.experiment(id=name, tags=["a"])) for name in ("x", "y")]
    frame = experiments_frame(found)
    assert list(frame.index) == ["x", "y"]
    assert list(frame["status"]) == ["completed", "completed"] and frame.loc["x", "tags"] == ["a"]
    assert experiments_frame([]).empty


def test_samples_are_rows() -> None:
    rows = [{"step": 5, "samples": [{"prompt": "a", "generated": "b"}, {"prompt": "c", "generated": "d"}]}]
    frame = samples_frame(SampleHistory.model_validate({"experimentId": "x", "rows": rows, "total": 1}))
    assert frame.to_dict("records") == [
        {"step": 5, "prompt": "a", "generated": "b"},
        {"step": 5, "prompt": "c", "generated": "d"},
    ]


def test_without_pandas_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        metrics_frame(Metrics.model_validate(documents.metrics()))
