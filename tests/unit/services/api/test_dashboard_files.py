"""The page and files of the dashboard: size, caching, content security policy, and use below a sub-path."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from common.config import Settings
from common.metrics import names
from services.api.app import create_app
from services.api.static_files import INDEX, STATIC, StaticFiles
from tests.paths import ROOT
from tidal_client.wire.sampling import DEFAULTS

MOST_BYTES = 150_000


@pytest.fixture
def client() -> TestClient:
    return TestClient(create_app(Settings(), "secret"), base_url="http://127.0.0.1")


def addresses(page: str) -> list[str]:
    """Return the URLs that the page loads."""
    return re.findall(r'(?:src|href)="(assets/[^"]+)"', page)


def test_all_files_of_the_page_together_are_below_150_kb_in_gzip(client: TestClient) -> None:
    total = 0
    page = client.get("/")
    for address in {"", *addresses(page.text)}:
        reply = client.get(f"/{address}", headers={"Accept-Encoding": "gzip"})
        assert reply.status_code == 200
        assert reply.headers["content-encoding"] == "gzip"
        total += int(reply.headers["content-length"])
    assert 30_000 < total <= MOST_BYTES


def test_every_script_is_named_in_the_page_and_imports_only_files_that_exist(client: TestClient) -> None:
    page = client.get("/").text
    scripts = sorted(STATIC.rglob("*.js"))
    named = {address.split("/", 2)[2] for address in addresses(page)}
    assert {path.relative_to(STATIC).as_posix() for path in scripts} <= named
    for path in scripts:
        for target in re.findall(r'(?:from|import)\s*"([^"]+)"', path.read_text()):
            assert target.startswith("."), f"{path.name} imports {target}, which a browser cannot find"
            assert (path.parent / target).resolve().is_file(), f"{path.name} imports {target}"


def test_the_policy_allows_this_server_only_and_nothing_inline(client: TestClient) -> None:
    reply = client.get("/")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy and "http" not in policy
    assert "<style" not in reply.text and " style=" not in reply.text
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", reply.text))
    mentioned = {
        path.name: found
        for path in STATIC.rglob("*")
        if path.suffix in (".js", ".css", ".html") and path.parent.name != "vendor"
        if (found := [u for u in re.findall(r"https?://[^\s\"']+", path.read_text()) if "www.w3.org" not in u])
    }
    assert mentioned == {}


def test_files_are_cached_for_ever_and_the_page_is_revalidated(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["cache-control"] == "no-cache"
    again = client.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    script = client.get(f"/{addresses(page.text)[0]}")
    assert "immutable" in script.headers["cache-control"]
    old_address = re.sub(r"assets/[0-9a-f]{16}/", "assets/0000000000000000/", addresses(page.text)[0])
    assert client.get(f"/{old_address}").headers["cache-control"] == "no-cache"


def test_the_style_sheets_are_joined_in_the_order_of_the_page(client: TestClient) -> None:
    named = re.findall(r'<link rel="stylesheet" href="assets/([^"]+)">', (STATIC / INDEX).read_text())
    [sent] = re.findall(r'<link rel="stylesheet" href="([^"]+)">', client.get("/").text)
    assert len(named) > 3
    assert client.get(f"/{sent}").text == "\n".join((STATIC / name).read_text() for name in named)


def test_a_missing_file_and_a_path_outside_the_folder_are_404(client: TestClient) -> None:
    for name in ("none.js", "..%2f..%2fapi/app.py", "../../api/app.py", ""):
        assert client.get(f"/assets/{name}").status_code == 404


def test_the_page_works_below_a_sub_path_whether_or_not_the_proxy_removes_it() -> None:
    client = TestClient(create_app(Settings(root_path="/tidal"), "secret"), base_url="http://127.0.0.1")
    page = client.get("/tidal/")
    assert page.status_code == 200
    assert client.get("/").text == page.text
    assert all(not address.startswith("/") for address in addresses(page.text))
    assert client.get(f"/tidal/{addresses(page.text)[0]}").status_code == 200


def test_a_changed_file_gets_another_address(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text('<link href="assets/a.css">')
    (tmp_path / "a.css").write_text("a{}")
    files = StaticFiles(tmp_path)
    first = files.get(INDEX)
    assert first is not None and gzip.decompress(first.packed) == first.plain
    (tmp_path / "a.css").write_text("a{color:red}")
    second = files.get(INDEX)
    assert second is not None and second.plain != first.plain and second.etag != first.etag


def test_scripts_are_sent_without_their_comments_and_with_the_same_line_numbers(tmp_path: Path) -> None:
    source = (
        "// What it does.\n/**\n * In full.\n */\nconst a = 1; // why\n  // then\nconst b = `http://x/*`;\n/** c */\n"
    )
    (tmp_path / "vendor").mkdir()
    for name in ("a.js", "vendor/b.js"):
        (tmp_path / name).write_text(source)
    files = StaticFiles(tmp_path)
    sent, library = files.get("a.js"), files.get("vendor/b.js")
    assert sent is not None and sent.plain == b"\n\n\n\nconst a = 1; // why\n\nconst b = `http://x/*`;\n\n"
    assert library is not None and library.plain == source.encode()


def test_the_libraries_are_the_files_that_were_vendored() -> None:
    script = ROOT / "scripts" / "vendor_dashboard.py"
    checked = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_the_session_reports_what_a_token_allows() -> None:
    closed = TestClient(create_app(Settings(require_auth_for_reads=True), "secret"), base_url="http://127.0.0.1")
    opened = TestClient(create_app(Settings(), "secret"), base_url="http://127.0.0.1")
    own, wrong = ({"Authorization": f"Bearer {token}"} for token in ("secret", "guess"))
    assert opened.get("/api/session", headers=own).json()["scopes"] == ["read", "generate", "submit", "admin"]
    for headers in ({}, wrong):
        reply = opened.get("/api/session", headers=headers).json()
        assert (reply["name"], reply["scopes"], reply["readsOpen"]) == (None, ["read", "generate"], True)
        reply = closed.get("/api/session", headers=headers).json()
        assert (reply["name"], reply["scopes"], reply["readsOpen"]) == (None, [], False)


def test_the_texts_of_the_signals_equal_those_of_the_reference(client: TestClient) -> None:
    document = client.get("/openapi.json").text.replace("\\n", " ")
    source = (STATIC / "js" / "lib" / "job-signals.js").read_text()
    entries = re.findall(r'name: "(\w+)",\s*text: "([^"]+)"([^}]*)', source)
    assert [name for name, _, _ in entries] == ["pause", "resume", "complete", "stop", "cancel"]
    for name, text, rest in entries:
        assert text in document or "own: true" in rest, f"{name}: the reference does not contain {text!r}"


def test_the_playground_uses_the_defaults_of_the_api() -> None:
    page = (STATIC / "js" / "pages" / "playground.js").read_text()
    found = dict(re.findall(r"^  (\w+): ([\d.]+),", page, re.MULTILINE))
    expected = {
        "modulation": DEFAULTS.modulation,
        "temperature": DEFAULTS.temperature,
        "topK": DEFAULTS.top_k,
        "topP": DEFAULTS.top_p,
        "repetitionPenalty": DEFAULTS.repetition_penalty,
    }
    assert {name: float(value) for name, value in found.items()} == expected


def test_the_charts_of_pretraining_show_metrics_that_training_writes() -> None:
    catalog = (STATIC / "js" / "charts" / "catalog.js").read_text()
    pretraining = [part for part in catalog.split("\n  {\n") if "kind: LM" in part]
    shown = {name for part in pretraining for name in re.findall(r'\{ name: "([^"]+)"', part)}
    assert names.GEMM_SHARE in shown
    assert shown <= {value for name, value in vars(names).items() if name.isupper()}
