"""Write the table of endpoints and scopes in docs/access.md from the OpenAPI document: `python -m scripts.access_docs`.

Only the part between the two markers is replaced. A test fails when the file differs from what this script writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.config import Settings
from services.api.app import create_app
from services.api.openapi import OPEN_SCOPES, needed_scope

TARGET = Path(__file__).resolve().parent.parent / "docs" / "access.md"
BEGIN = "<!-- endpoints: written by scripts/access_docs.py -->\n"
END = "<!-- end of endpoints -->\n"
METHODS = ("get", "post", "put", "patch", "delete")


def render(page: str) -> str:
    """Return the text of docs/access.md, given as `page`, with its table replaced."""
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def table() -> str:
    """Return the table in Markdown, sorted by path."""
    document = create_app(Settings(_env_file=None), "not used").openapi()
    lines = ["| endpoint | scope | open by default | what it does |", "|---|---|---|---|"]
    for path, operations in sorted(document["paths"].items()):
        lines += [_line(path, method, operations[method]) for method in METHODS if method in operations]
    return "\n".join(lines) + "\n"


def _line(path: str, method: str, operation: dict[str, Any]) -> str:
    scope = needed_scope(operation) if "security" in operation else None
    is_open = scope is None or scope in OPEN_SCOPES
    needed = f"`{scope}`" if scope is not None else "none"
    return f"| `{method.upper()} {path}` | {needed} | {'yes' if is_open else 'no'} | {operation['summary']} |"


def main() -> None:
    """Write docs/access.md."""
    TARGET.write_text(render(TARGET.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
