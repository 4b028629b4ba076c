"""`GET /docs`: the OpenAPI document as one HTML page, rendered on the server.

The page has no script and loads nothing from other hosts, so it works without internet access and under a strict
content security policy. The page cannot send requests; it shows a `curl` command for each operation.
"""

from __future__ import annotations

import inspect
import json
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from markdown_it import MarkdownIt
from starlette.responses import HTMLResponse

router = APIRouter(include_in_schema=False)
_MARKDOWN = MarkdownIt("commonmark", {"html": False})

_STYLE = """
:root{color-scheme:light dark;--line:#8885;--soft:#8882}
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}
code,pre{font:13px/1.45 ui-monospace,monospace}pre{background:var(--soft);padding:.7rem;overflow:auto;border-radius:6px}
details{border:1px solid var(--line);border-radius:6px;margin:.5rem 0;padding:.4rem .8rem}summary{cursor:pointer}
.t{border:1px solid var(--line);border-radius:6px;padding:0 .4rem;font-size:.75rem}
.m{display:inline-block;min-width:4.2rem;font-weight:700}
table{border-collapse:collapse;width:100%}
td,th{border-top:1px solid var(--line);padding:.25rem .5rem;text-align:left;vertical-align:top}
"""


@router.get("/docs")
def page(request: Request) -> HTMLResponse:
    """Return the API reference as HTML."""
    root = str(request.scope.get("root_path", ""))
    return HTMLResponse(render_page(request.app.openapi(), root), headers={"Content-Security-Policy": _POLICY})


_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"


def render_page(document: dict[str, Any], root: str = "") -> str:
    """Return the HTML page for an OpenAPI document; `root` is the path under which the api is served."""
    schemas = document.get("components", {}).get("schemas", {})
    info = document["info"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style>",
        f"<h1>{escape(info['title'])} API {escape(info['version'])}</h1>{_markdown(info.get('description', ''))}",
        f"<p>Machine-readable: <a href='{escape(root)}/openapi.json'>openapi.json</a></p>",
    ]
    for tag in document.get("tags", []):
        parts.append(f"<h2 id='{escape(tag['name'])}'>{escape(tag['name'].capitalize())}</h2>")
        parts.append(f"<p>{escape(tag.get('description', ''))}</p>")
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation.get("tags", []):
                    parts.append(_operation(root + path, method, operation, schemas))
    parts.append("<h2>Schemas</h2>")
    parts.extend(_schema(name, schema) for name, schema in sorted(schemas.items()))
    return "".join(parts)


def _operation(path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    secured = "<span class=t>token</span> " if needs_token(operation) else ""
    out = [
        f"<details><summary><span class=m>{method.upper()}</span> <code>{escape(path)}</code> ",
        f"{secured}{escape(operation.get('summary', ''))}</summary>{_markdown(operation.get('description', ''))}",
    ]
    parameters = operation.get("parameters", [])
    if parameters:
        rows = "".join(
            f"<tr><td><code>{escape(p['name'])}</code><td>{escape(p['in'])}<td>{escape(_type(p.get('schema', {})))}"
            f"<td>{escape(p.get('description', ''))}"
            for p in parameters
        )
        out.append(f"<table><tr><th>parameter<th>in<th>type<th>meaning{rows}</table>")
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    example = _example(body, schemas)
    if body:
        out.append(f"<p>Body: {_link_to(body.get('schema', {}))}</p>")
    data = f" -H 'Content-Type: application/json' -d '{json.dumps(example)}'" if example is not None else ""
    token = ' -H "Authorization: Bearer $TIDAL_AUTH_TOKEN"' if secured else ""
    verb = "" if method == "get" else f" -X {method.upper()}"
    out.append(f"<pre>{escape(f'curl{verb} http://127.0.0.1:4400{path}{token}{data}')}</pre><ul>")
    for status, response in operation.get("responses", {}).items():
        content: dict[str, Any] = next(iter(response.get("content", {}).values()), {})
        out.append(
            f"<li><b>{status}</b> {escape(response.get('description', ''))} {_link_to(content.get('schema', {}))}"
        )
    out.append("</ul></details>")
    return "".join(out)


def needs_token(operation: dict[str, Any]) -> bool:
    """Return whether the operation always needs a token.

    An alternative `{}` in its `security` means that none is needed.
    """
    alternatives = operation.get("security", [])
    return bool(alternatives) and {} not in alternatives


def _example(body: dict[str, Any], schemas: dict[str, Any]) -> Any:
    if "examples" in body:
        return next(iter(body["examples"].values()))["value"]
    schema = schemas.get(str(body.get("schema", {}).get("$ref", "")).rpartition("/")[2], {})
    return schema.get("example", (schema.get("examples") or [None])[0])


def _schema(name: str, schema: dict[str, Any]) -> str:
    required = set(schema.get("required", []))
    rows = "".join(
        f"<tr><td><code>{escape(key)}</code>{' *' if key in required else ''}<td>{escape(_type(value))}"
        f"<td>{escape(value.get('description', ''))}"
        for key, value in schema.get("properties", {}).items()
    )
    table = f"<table><tr><th>name<th>type<th>meaning{rows}</table>" if rows else f"<p>{escape(_type(schema))}</p>"
    return (
        f"<details id='schema-{escape(name)}'><summary><code>{escape(name)}</code></summary>"
        f"{_markdown(schema.get('description', ''))}{table}</details>"
    )


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " | ".join(_type(item) for item in schema[key])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    kind = str(schema.get("type", "any"))
    if kind == "array":
        kind = f"[{_type(schema.get('items', {}))}]"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None or high is not None:
        kind += f" {'' if low is None else low}…{'' if high is None else high}"
    default = schema.get("default")
    return kind if default is None else f"{kind}, default {json.dumps(default)}"


def _link_to(schema: dict[str, Any]) -> str:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return f"<a href='#schema-{escape(name)}'>{escape(name)}</a>" if name else ""


def _markdown(text: str) -> str:
    """Render the Markdown of a docstring as HTML; raw HTML in it is shown as text."""
    return str(_MARKDOWN.render(inspect.cleandoc(text)))
