"""Parses the samples of the metrics endpoint."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.integration.api.conftest import Api


def samples(api: Api) -> dict[str, dict[tuple[str, ...], float]]:
    """Return {(name, label values): value} of all samples."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(api.http.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found
