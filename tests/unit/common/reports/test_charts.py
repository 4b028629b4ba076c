"""Valid chart blocks are accepted; invalid ones are rejected with an error that names the line."""

from __future__ import annotations

import pytest

from common.errors import InvalidInputError
from common.reports import AblationChart, MetricsChart, SweepChart, TrajectoryChart, check_charts
from common.reports.chart_blocks import parse_chart

GOOD = [
    (
        '{"experiments": ["exp-1"], "metrics": ["Losses/Total", "Losses/Validation"], "title": "L", "logScale": true}',
        MetricsChart(experiments=["exp-1"], metrics=["Losses/Total", "Losses/Validation"], title="L", logScale=True),
    ),
    ("experiments: [a, b]\nmetrics:\n  - entropy\n", MetricsChart(experiments=["a", "b"], metrics=["entropy"])),
    ("kind: ablation\nexperiment: a\npaired: true\n", AblationChart(kind="ablation", experiment="a", paired=True)),
    (
        "kind: trajectory\nanalysis: ana_abc\nprompt: 2",
        TrajectoryChart(kind="trajectory", analysis="ana_abc", prompt=2),
    ),
    ("kind: sweep\nanalysis: ana_abc", SweepChart(kind="sweep", analysis="ana_abc", measure="wordCount")),
]
BAD = [
    ("", "must be a mapping"),
    ("[1, 2]", "must be a mapping"),
    ("{", "neither YAML nor JSON"),
    ("a: *x", "neither YAML nor JSON|aliases"),
    ("a: &x [1]\nb: *x", "aliases"),
    ("[" * 3000, "neither YAML nor JSON|nested too deeply"),
    ("x" * 5000, "longer than 4000"),
    ("kind: pie", "kind 'pie' is unknown; use one of metrics, ablation, trajectory, sweep"),
    ("kind: [1]", "is unknown; use one of"),
    ("metrics: [a]", "'experiments' is missing"),
    ("experiments: [a]\nmetrics: [m]\nlogscale: true", "unknown key 'logscale'; the keys are title, kind"),
    ("experiments: [../etc]\nmetrics: [m]", "experiments.0"),
    ("experiments: [a, a]\nmetrics: [m]", "twice"),
    ("experiments: [a, b, c]\nmetrics: [l, m, n]", "exceeds 8 lines"),
    ("experiments: [1]\nmetrics: [m]", "experiments.0"),
    ("kind: ablation\nexperiment: a\nquantity: beauty", "quantity"),
    ("kind: trajectory\nanalysis: ana_abc\nprompt: 0", "prompt"),
    ("kind: sweep\nanalysis: exp-1", "analysis"),
]


@pytest.mark.parametrize(("body", "chart"), GOOD)
def test_a_block_is_read_from_yaml_and_json(body: str, chart: object) -> None:
    assert parse_chart(body) == chart


@pytest.mark.parametrize(("body", "message"), BAD)
def test_what_is_no_chart_is_refused_in_one_line(body: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        parse_chart(body)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 700


def test_every_bad_block_is_named_by_its_line() -> None:
    text = (
        "# One\n\n```chart\nkind: pie\n```\n\n"  # invalid, begins at line 3
        "```chart\n{experiments: [a], metrics: [m]}\n```\n"  # valid
        "- a\n\n  ```chart\n  {experiments: [a], metrics: [m]}\n  ```\n\n"  # invalid, begins at line 12
        "````\n```chart\nkind: no chart, but code\n```\n````\n\n"
        "    ```chart\n    code, too\n\n"
        "~~~chart\nmetrics: [m]\n~~~\n"  # invalid, begins at line 25
    )
    with pytest.raises(InvalidInputError) as refused:
        check_charts(text)
    assert [(error["location"], error["message"].split(":")[0]) for error in refused.value.errors] == [
        ("body.markdown", "line 3"),
        ("body.markdown", "line 12"),
        ("body.markdown", "line 25"),
    ]
    for error in refused.value.errors:
        line = int(error["message"].split(":")[0].removeprefix("line "))
        assert "chart" in text.split("\n")[line - 1]


def test_a_report_holds_forty_charts_and_not_one_more() -> None:
    block = "```chart\n{experiments: [a], metrics: [m]}\n```\n\n"
    assert len(check_charts(block * 40)) == 40
    with pytest.raises(InvalidInputError, match="at most 40 charts"):
        check_charts(block * 41)
