"""Files and `--set` read YAML in the same way, and an error names the line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from common.config import LMConfig, load_lm_config
from common.config.yaml_text import MOST_LEVELS, parse_yaml, read_mapping, write_yaml
from common.errors import ConfigError
from services.cli.configuration import read_overrides
from tests.paths import CASES, ROOT

SCALARS = [
    ("on", "on"),
    ("off", "off"),
    ("yes", "yes"),
    ("No", "No"),
    ("y", "y"),
    ("true", True),
    ("False", False),
    ("1e2", 100.0),
    ("1E+2", 100.0),
    ("1e-3", 0.001),
    ("-1.5e3", -1500.0),
    ("1_000", 1000),
    ("1_000.5", 1000.5),
    ("-.5", -0.5),
    ("1.", 1.0),
    ("010", 10),
    ("0o10", 8),
    ("0x1f", 31),
    ("1__0", "1__0"),
    ("1_", "1_"),
    ("1:30", "1:30"),
    ("2020-01-01", "2020-01-01"),
    ("1.2.3", "1.2.3"),
    ("inf", "inf"),
    ("nan", "nan"),
    ("~", None),
    ("null", None),
    ("", None),
    ("'1e2'", "1e2"),
    ('"off"', "off"),
    ("[1e1, off]", [10.0, "off"]),
    ("{a: no}", {"a": "no"}),
    ("x=y", "x=y"),
]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_a_file_and_set_read_the_same_value(tmp_path: Path, text: str, value: object) -> None:
    (tmp_path / "job.yaml").write_text(f"a:\n  b: {text}\n")
    for found in (read_mapping(tmp_path / "job.yaml"), read_overrides(None, [f"a.b={text}"])):
        assert found == {"a": {"b": value}}
        assert type(found["a"]["b"]) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is already on line 1"),
        ("x:\n  a: {b: 1, c: 2,\n    b: 3}\n", "line 3: the key 'b' is already on line 2"),
        ("- {a: 1}\n- {a: 1, 'a': 2}\n", "line 2: the key 'a' is already on line 2"),
        ("a: &x {k: 1}\nb:\n  <<: *x\n  <<: *x\n", "line 4: the key '<<' is already on line 3"),
        ("a: 1\n2: 3\n", "line 2: the key 2 is not text"),
        ("true: 3\n", "line 1: the key true is not text"),
        ("? [a]\n: 3\n", "line 1: the key is not text"),
        ("a:\n\tb: 1\n", "line 2, column 1: a tab is not allowed here"),
        ("a: 1\n---\na: 2\n", "line 2, column 1: a second document begins"),
        ("a: 1\nb: *c\n", "line 2, column 4: found undefined alias"),
        ("a: 1\nb: &c [*c]\n", "line 2: this value contains itself"),
        ("a: 1\nb: \x07\n", r"line 2: the character U\+0007 is not allowed"),
        ("a: !!python/name:os.system x\n", "line 1: unknown tag !!python/name:os.system"),
        ("a: !!int word\n", "line 1: 'word' cannot be read as int"),
        ("a: " + "9" * 5000, "line 1: '9999"),
        ("a: 1\nb: .inf\n", "line 2: .inf is not a finite number"),
        ("a: -.INF\n", "line 1: -.INF is not a finite number"),
        ("a: .nan\n", "line 1: .nan is not a finite number"),
        ("a: 1e999\n", "line 1: 1e999 is not a finite number"),
        ("a: " + "[" * 10_000, f"line 1, column .*: nested more than {MOST_LEVELS} levels deep"),
        ("a: b: c\n", "line 1, column 5: mapping values are not allowed here"),
    ],
)
def test_what_is_no_configuration_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_yaml(text)
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"job.yaml: not valid YAML: {message}"):
        load_lm_config(tmp_path / "job.yaml")


def test_aliases_that_grow_without_bound_are_refused() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    with pytest.raises(ConfigError, match="more than 100000 values"):
        parse_yaml("\n".join(lines))


def test_anchors_and_merges_work() -> None:
    text = "base: &base {a: 1, b: 2}\nother: &other {b: 3, c: 4}\nmine: {<<: [*base, *other], a: 5}\n"
    assert parse_yaml(text)["mine"] == yaml.safe_load(text)["mine"] == {"a": 5, "b": 2, "c": 4}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n", "expected a mapping of sections at the top level, found a list"),
        (b"word\n", "expected a mapping of sections at the top level, found text"),
        (b"", "the file is empty"),
        (b"---\n", "the file is empty"),
        (b"a: 1\nb: \xe9\n", "line 2 is not UTF-8 text"),
    ],
)
def test_the_error_of_a_file_without_a_mapping_names_the_reason(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "job.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_mapping(tmp_path / "job.yaml")
    with pytest.raises(ConfigError, match=f"shown.yaml: .*{message}"):
        read_mapping(tmp_path / "job.yaml", name="shown.yaml")


def test_a_name_longer_than_a_file_name_may_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_mapping(tmp_path / ("n" * 300))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_what_is_written_reads_back_equal_here_and_under_yaml_1_1(value: object) -> None:
    text = write_yaml({"key": value})
    assert parse_yaml(text) == {"key": value}
    assert yaml.safe_load(text) == {"key": value}


@pytest.mark.parametrize("word", [text for text, _ in SCALARS])
def test_text_that_looks_like_something_else_is_written_in_quotes(word: str) -> None:
    assert parse_yaml(write_yaml([word])) == yaml.safe_load(write_yaml([word])) == [word]


# inputs from bug reports


def test_a_repeated_section_names_both_lines() -> None:
    with pytest.raises(ConfigError, match="line 5: the key 'training' is already on line 2; keep one of them"):
        load_lm_config(CASES / "y_dup.yaml")


def test_compile_off_is_off() -> None:
    assert load_lm_config(CASES / "y_compile_off.yaml").training.compile == "off"


@pytest.mark.parametrize(
    ("word", "meaning"),
    [("on", "on"), ("Off", "off"), ("yes", "on"), ("NO", "off"), ("true", "on"), ("false", "off"), ("auto", "auto")],
)
def test_compile_takes_the_usual_words(tmp_path: Path, word: str, meaning: str) -> None:
    (tmp_path / "job.yaml").write_text(f"training: {{compile: {word}}}\n")
    assert load_lm_config(tmp_path / "job.yaml").training.compile == meaning
    assert load_lm_config(overrides=read_overrides(None, [f"training.compile={word}"])).training.compile == meaning


def test_whole_numbers_may_be_written_with_an_exponent(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("training: {max_steps: 1e2, epochs: 1_000}\n")
    training = load_lm_config(tmp_path / "job.yaml").training
    assert (training.max_steps, training.epochs) == (100, 1000)
    assert type(training.max_steps) is int
    with pytest.raises(ConfigError, match=r"training\.max_steps.*1\.5"):
        load_lm_config(overrides={"training": {"max_steps": 1.5}})


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), "inf", "nan"])
@pytest.mark.parametrize("field", ["learning_rate", "max_grad_norm", "max_seconds", "max_steps", "weight_decay"])
def test_no_number_of_a_configuration_is_infinite(field: str, value: float | str) -> None:
    with pytest.raises(ConfigError, match=rf"training\.{field}"):
        load_lm_config(overrides={"training": {field: value}})


def test_true_is_no_number() -> None:
    for section, key in (("training", "epochs"), ("training", "learning_rate"), ("checkpoint", "every_steps")):
        with pytest.raises(ConfigError, match=rf"{section}\.{key}: expected a number, got true"):
            load_lm_config(overrides={section: {key: True}})


def test_a_number_where_text_is_needed_is_an_error_that_suggests_quotes(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("model: {version: 1.0}\n")
    with pytest.raises(ConfigError, match=r"model\.version: .*got the number 1\.0; write it in quotes"):
        load_lm_config(tmp_path / "job.yaml")


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.name: .*at most 128 characters"):
        load_lm_config(CASES / "longname.yaml")
    for name in ("a b", "é", "a/b", ".hidden", "a\n", "a\0", "\ud800", ""):
        with pytest.raises(ConfigError, match=r"model\.(name|version)"):
            load_lm_config(overrides={"model": {"name": name}})
        with pytest.raises(ConfigError, match=r"model\.(name|version)"):
            load_lm_config(overrides={"model": {"version": name}})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"training": {"max_steps": 10**30}}, "does not fit into 64 bits"),
        ({"training": {"learning_rate": 10**400}}, "does not fit into 64 bits"),
        ({"data": {"text_field": "a\0b"}}, "NUL character"),
        ({"data": {"text_field": "a\ud800"}}, "half a surrogate pair"),
        ({"evaluation": {"prompts": ["fine", "a\0b"]}}, "NUL character"),
        ({"data": {"source": "n" * 252 + ".txt"}}, "more than 255 bytes"),
        ({"data": {"source": "é" * 130 + ".txt"}}, "more than 255 bytes"),
        ({"data": {"validation_source": "a/" * 600 + "b.txt"}}, "longer than 1024 bytes"),
        ({"data": {"source": ""}}, "empty"),
    ],
)
def test_values_that_cannot_be_kept_are_refused(overrides: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_lm_config(overrides=overrides)


def test_a_float_that_a_database_gave_back_as_a_whole_number_is_the_same_float() -> None:
    kept = load_lm_config(overrides={"training": {"learning_rate": 1e30}})
    assert load_lm_config(overrides={"training": {"learning_rate": 10**30}}) == kept


def test_every_shipped_configuration_loads() -> None:
    folder = ROOT / "configs"
    found = sorted(folder.rglob("*.yaml"))
    assert len(found) >= 6
    for path in found:
        assert read_mapping(path) == yaml.safe_load(path.read_text(encoding="utf-8"))
    assert load_lm_config(folder / "base_config.yaml") == LMConfig()
