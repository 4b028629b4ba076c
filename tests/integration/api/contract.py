"""Tests the api against its OpenAPI document: schemathesis sends valid and invalid requests.

A reply must not be a server error, and the document must list its status for the operation. One request in four is sent
as generated. In the other three, ids are replaced by ids of existing `Resources`, or the whole body is replaced by a
valid one. Otherwise, nearly all requests would fail the first checks of the operation. Streams never end, so only the
status and headers of their replies are read. Other tests of each operation check the bodies of replies.

Run the complete test with `python -m tests.integration.api.contract_run`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import requests
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from schemathesis.generation import GenerationMode

from tests.integration.api.conftest import BEARER, Api
from tests.integration.api.contract_resources import Resources

CHECKS = ("not_a_server_error", "status_code_conformance")


@dataclass
class Outcome:
    """The replies and failures of a run."""

    statuses: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    """{operation: {status: number of replies}}."""
    failures: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        """Return the number of requests."""
        return sum(sum(counts.values()) for counts in self.statuses.values())

    @property
    def successes(self) -> int:
        """Return the number of requests that were answered with 2xx."""
        return sum(
            count for counts in self.statuses.values() for status, count in counts.items() if 200 <= status < 300
        )

    @property
    def never_reached(self) -> list[str]:
        """Return the operations that never answered with 2xx."""
        return [label for label, counts in self.statuses.items() if not any(200 <= status < 300 for status in counts)]

    def table(self) -> str:
        """Return a table with one line per operation."""
        lines = [
            f"{label:72} {' '.join(f'{status}×{count}' for status, count in sorted(counts.items()))}"
            for label, counts in sorted(self.statuses.items())
        ]
        share = self.successes / max(self.cases, 1)
        return "\n".join([*lines, f"{self.cases} cases, {share:.0%} answered with 2xx, {len(self.failures)} failures"])


def run(
    api: Api, resources: Resources, *, token: bool, examples: int, coverage: bool, seed: int = 1, paths: str = ""
) -> Outcome:
    """Send `examples` generated requests per operation, and with `coverage` also requests at the limits of the schemas.

    Only paths are tested whose beginning matches the regular expression `paths`.
    """
    outcome = Outcome()
    headers = BEARER if token else {}
    document = api.http.get("/openapi.json").json()
    document["paths"] = {path: item for path, item in document["paths"].items() if re.match(paths, path)}
    streams = [path for path in document["paths"] if path.endswith("/stream")]
    phases: dict[str, Any] = {"examples": {"enabled": False}, "stateful": {"enabled": False}}
    phases["coverage"] = {"enabled": coverage, "unexpected-methods": []}
    config = {
        "seed": seed,
        "base-url": api.url,
        "headers": headers,
        "request-timeout": 60,
        "continue-on-failure": True,
        "phases": phases,
        "generation": {"max-examples": examples, "deterministic": True, "database": "none", "no-shrink": True},
        "checks": {"enabled": False, **{name: {"enabled": True} for name in CHECKS}},
        "suppress-health-check": ["all"],
    }
    schema = schemathesis.openapi.from_dict(document, config=SchemathesisConfig.from_dict(config))
    turns: Counter[str] = Counter()

    @schemathesis.hook
    def before_call(context: Any, case: Any, kwargs: Any) -> None:
        label = case.operation.label
        turns[label] += 1
        turn = turns[label] % 4
        # Schemathesis reuses ids of earlier replies; do not delete resources that later requests need.
        if case.method == "DELETE":
            others = {
                name: "nosuch" if value in resources.kept else value
                for name, value in (case.path_parameters or {}).items()
            }
            case.path_parameters = others
        if turn == 0:
            return
        if turn == 1:
            valid = resources.valid(label)
            case.path_parameters = {**(case.path_parameters or {}), **valid.path}
            case.query = valid.query
            if valid.body is not None:
                case.body = valid.body
                case.media_type = "application/octet-stream" if isinstance(valid.body, bytes) else "application/json"
            return
        stay = {**resources.path_values(), **resources.plain(label)().path}
        # Do not delete the resources in `Resources`, because later requests need them.
        if case.method != "DELETE":
            case.path_parameters = {name: stay.get(name, value) for name, value in (case.path_parameters or {}).items()}
        if turn == 2:
            case.body = resources.substitute(case.body)

    @schemathesis.hook
    def after_call(context: Any, case: Any, response: Any) -> None:
        outcome.statuses[case.operation.label][response.status_code] += 1

    try:
        for event in from_schema(schema.exclude(path=streams)).execute():
            if isinstance(event, events.ScenarioFinished):
                for case_id, checks in event.recorder.checks.items():
                    for check in checks:
                        if check.failure_info is not None:
                            case = event.recorder.cases[case_id].value
                            failure = str(check.failure_info.failure).replace("\n", " ")[:300]
                            outcome.failures.append(
                                f"{event.recorder.label}: {check.name}: {failure}\n  {_shown(case)}"
                            )
            elif isinstance(event, events.NonFatalError):
                outcome.failures.append(f"{event.label}: {event.info.title}: {event.info.message}"[:500])
    finally:
        schemathesis.hooks.unregister_all()  # hooks are registered for the whole process
    for operation in (result.ok() for result in schema.include(path=streams).get_all_operations()):
        _heads(api, resources, operation, headers, examples, outcome)
    return outcome


def _heads(
    api: Api, resources: Resources, operation: Any, headers: dict[str, str], examples: int, outcome: Outcome
) -> None:
    """Send requests for streams, read only the status, and close the connections."""
    known = {str(status) for status in operation.definition.raw["responses"]}
    for case in _cases(operation, examples):
        if outcome.statuses[operation.label].total() % 2 == 0:
            case.path_parameters = {name: resources.path_values()[name] for name in case.path_parameters or {}}
        arguments = case.as_transport_kwargs(base_url=api.url, headers=headers)
        with requests.request(**arguments, stream=True, timeout=60) as reply:
            outcome.statuses[operation.label][reply.status_code] += 1
            if str(reply.status_code) not in known or reply.status_code >= 500:
                outcome.failures.append(f"{operation.label}: {reply.status_code}\n  {_shown(case)}")


def _cases(operation: Any, examples: int) -> Iterator[Any]:
    found: list[Any] = []

    @hypothesis.seed(1)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=False,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def collect(case: Any) -> None:
        found.append(case)

    collect()
    return iter(found)


def _shown(case: Any) -> str:
    return f"{case.method} {case.path} path={case.path_parameters} query={case.query} body={str(case.body)[:300]}"
