"""YAML files and the values of the option `--set` are parsed and combined into nested values."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigError
from services.cli.configuration import read_overrides


def test_settings_lie_over_the_file_and_keep_their_types(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("training:\n  max_steps: 10\n  seed: 1\nmodel:\n  d_model: 64\n")
    values = read_overrides(
        path, ["training.max_steps=200", "training.learning_rate=1e-3", "data.source=builtin:stories"]
    )
    assert values == {
        "training": {"max_steps": 200, "seed": 1, "learning_rate": 0.001},
        "model": {"d_model": 64},
        "data": {"source": "builtin:stories"},
    }


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("true", True), ("null", None), ("[a, b]", ["a", "b"]), ("x=y", "x=y"), ("", None)]
)
def test_values_are_yaml(text: str, value: object) -> None:
    assert read_overrides(None, [f"a.b={text}"]) == {"a": {"b": value}}


@pytest.mark.parametrize("setting", ["no-equals", "=1", "a..b=1", ".=1"])
def test_another_form_is_named(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"expected section\.key=value"):
        read_overrides(None, [setting])


@pytest.mark.parametrize(
    ("content", "message"),
    [("- a list\n", "expected a mapping"), ("a: [", "not valid YAML: line 1"), (None, "no such file")],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "job.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_overrides(path, [])
