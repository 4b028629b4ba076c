"""The reference page renders Markdown and shows which operations need a token."""

from __future__ import annotations

from fastapi.testclient import TestClient

from common.config import Settings
from services.api.app import create_app


def test_the_page_is_readable_without_script_or_other_hosts() -> None:
    client = TestClient(create_app(Settings(), "secret"), base_url="http://127.0.0.1")
    reply = client.get("/docs")
    assert reply.status_code == 200
    assert "<strong>Submit</strong>" in reply.text and "**" not in reply.text
    assert "<script" not in reply.text and "src=" not in reply.text


def test_the_document_marks_operations_that_need_no_token() -> None:
    paths = (
        TestClient(create_app(Settings(), "secret"), base_url="http://127.0.0.1").get("/openapi.json").json()["paths"]
    )
    assert paths["/api/jobs"]["get"]["security"] == [{}, {"token": ["read"]}]
    assert paths["/api/generate"]["post"]["security"] == [{}, {"token": ["generate"]}]
    assert paths["/api/jobs"]["post"]["security"] == [{"token": ["submit"]}]


def test_the_document_marks_closed_reads() -> None:
    client = TestClient(create_app(Settings(require_auth_for_reads=True), "secret"), base_url="http://127.0.0.1")
    assert client.get("/openapi.json").json()["paths"]["/api/jobs"]["get"]["security"] == [{"token": ["read"]}]
