"""docs/operations.md explains exactly the statuses, desired states, events and error codes that the code writes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.config import PROJECT_ROOT, Settings
from common.jobs.retry import Fault
from tidal_client.vocabulary import TERMINAL, DesiredState, JobStatus

GUIDE = (PROJECT_ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
WRITERS = ("add_event", "write_event", "_free_slot", "_record")
"""Functions that write an event. Their third argument is the name of the event."""
STATUS_EVENTS = {"starting", "running", "completing"}
"""Events that are named after the new status (`common.jobs.ownership.transition`)."""


def section(title: str) -> str:
    """Return the section of the guide with this heading."""
    return GUIDE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def explained(title: str) -> set[str]:
    """Return the names in the first column of the table in a section."""
    rows = [line.split("|")[1] for line in section(title).splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def strings(node: ast.AST) -> set[str]:
    """Return all string constants in an expression such as `"a" if b else "c"`."""
    return {found.value for found in ast.walk(node) if isinstance(found, ast.Constant) and isinstance(found.value, str)}


def events_in(tree: ast.AST) -> Iterator[str]:
    """Yield the name of every event that the code in `tree` writes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            for keyword in node.keywords:
                if keyword.arg == "event" or (name == "HistoryEvent" and keyword.arg == "name"):
                    yield from strings(keyword.value)
            if name in WRITERS and len(node.args) > 2 and isinstance(node.args[2], ast.Constant):
                yield from strings(node.args[2])
            if name == "event" and node.args and isinstance(node.args[0], ast.Constant):
                yield from strings(node.args[0])
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            names = [getattr(each, "id", "") for each in node.targets[0].elts]
            if "event" in names and isinstance(node.value, ast.Tuple):
                yield from strings(node.value.elts[names.index("event")])
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "event" and isinstance(value, ast.Constant):
                    yield from strings(value)


def trees(*folders: str) -> Iterator[ast.AST]:
    for folder in folders:
        for path in sorted((PROJECT_ROOT / folder).rglob("*.py")):
            yield ast.parse(path.read_text(encoding="utf-8"))


def written_events() -> set[str]:
    writers = ("common/jobs", "common/backup", "common/checkpoint", "common/training", "common/rl", "services/worker")
    found = {name for tree in trees(*writers, "services/trainer", "services/health") for name in events_in(tree)}
    return (found | STATUS_EVENTS) - {"cancel"}  # "cancel" is not an event: it is a value in the event `signal`.


def test_every_event_is_explained_and_every_explained_event_is_written() -> None:
    written = written_events()
    assert len(written) > 20
    assert explained("Events") == written


@pytest.mark.parametrize("source", ['hooks.event("brand_new")', 'move(session, job, S, event="brand_new")'])
def test_a_new_event_would_be_found(source: str) -> None:
    assert set(events_in(ast.parse(source))) == {"brand_new"}


def test_every_status_and_desired_state_is_explained() -> None:
    assert explained("What each status means") == set(JobStatus)
    assert all(f"`{state}`" in section("What each status means") for state in DesiredState)
    assert len(TERMINAL) == 3  # The guide contains: "The last three are final".


def test_every_error_code_of_a_job_is_explained() -> None:
    codes = {fault.value for fault in Fault}
    for tree in trees("services/worker", "services/trainer", "common/training", "common/rl"):
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant):
                codes |= strings(node.value)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "JobFailure":
                codes |= strings(node.args[0])
    assert {"trainer_killed", "training_diverged", "internal_error"} <= codes
    assert explained("Error codes") == codes


def test_every_setting_it_names_exists_with_the_default_it_states() -> None:
    settings = Settings(_env_file=None)
    names = set(re.findall(r"TIDAL_([A-Z_]+)", GUIDE)) - {"AUTH_TOKEN"}
    unknown = {name for name in names if name.lower() not in Settings.model_fields}
    assert unknown == set()
    stated = re.findall(r"\| `TIDAL_([A-Z_]+)` \| (\d+) \|", GUIDE)
    assert len(stated) >= 8
    assert {name: float(value) for name, value in stated} == {
        name: getattr(settings, name.lower()) for name, _ in stated
    }


def test_every_file_it_links_to_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", GUIDE) if "://" not in link]
    assert links
    assert [link for link in links if not (PROJECT_ROOT / "docs" / Path(link)).exists()] == []
