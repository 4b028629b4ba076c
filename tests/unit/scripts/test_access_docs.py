"""The table of endpoints and scopes in docs/access.md is the one that the script writes from the OpenAPI document."""

from __future__ import annotations

from scripts.access_docs import TARGET, render


def test_the_page_contains_every_endpoint_with_its_scope() -> None:
    present = TARGET.read_text(encoding="utf-8")
    assert render(present) == present, "run `python -m scripts.access_docs`"
    assert "| `POST /api/jobs` | `submit` | no | Submit a job |" in present
    assert "| `GET /api/tokens` | `admin` | no | List tokens |" in present
    assert "| `GET /healthz` | none | yes | Check liveness |" in present
