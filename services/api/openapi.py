"""Completes the OpenAPI document that FastAPI generates from the routes.

Routes declare their own statuses (404, 409, 429, …). This module adds the statuses that follow from how every request
is handled: 400 for invalid HTTP or JSON, 401, 403 and 429 for tokens, 408, 413, 415, 421, 422 and 503. For paths under
`/v1`, it replaces the error format by that of OpenAI.
"""

from __future__ import annotations

from typing import Any

from services.api.host_check import EXEMPT
from services.api.schemas.completions import ErrorReply
from services.api.schemas.problems import PROBLEM_TYPE, REF, problem_responses, problem_schemas
from tidal_client.vocabulary import TokenScope

OPEN = ("/api/session",)
"""Paths that never need a token. A request with a wrong token gets the same reply as a request without a token."""
OPEN_SCOPES = frozenset({TokenScope.READ, TokenScope.GENERATE})
"""Scopes of the operations that need a token only if reads need one."""
ALWAYS_UP = ("/healthz",)
"""Operations that never answer 503: they need neither database nor Redis, and are exempt from the connection limit."""
_FRAMEWORK_SCHEMAS = ("HTTPValidationError", "ValidationError")


def complete_document(document: dict[str, Any], *, reads_closed: bool) -> None:
    """Add security, statuses and error schemas to `document`.

    If `reads_closed` is true, the document states that read requests need a token, too.
    """
    schemas = document["components"]["schemas"]
    schemas.update(problem_schemas())
    error = ErrorReply.model_json_schema(ref_template=REF)
    schemas.update({**error.pop("$defs"), ErrorReply.__name__: error})
    for name in _FRAMEWORK_SCHEMAS:
        schemas.pop(name, None)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if "security" in operation:
                scope = needed_scope(operation)
                alternatives = [{"token": [] if scope is None else [scope.value]}]
                is_open = scope is None or (scope in OPEN_SCOPES and not reads_closed)
                operation["security"] = [{}, *alternatives] if is_open else alternatives
            responses = {
                status: response
                for status, response in operation["responses"].items()
                if response.get("description") != "Validation Error"  # FastAPI's own error format, which is never sent
            }
            for status, response in problem_responses(*_statuses(path, operation)).items():
                responses.setdefault(str(status), response)
            if path.startswith("/v1/"):
                responses = {status: _as_openai(response) for status, response in responses.items() if status != "422"}
            operation["responses"] = dict(sorted(responses.items()))


def needed_scope(operation: dict[str, Any]) -> TokenScope | None:
    """Return the scope that an operation with `security` needs; None if every caller may use it.

    The dependencies of a router and of its route may name several scopes; the operation needs the last one in the order
    of TokenScope.
    """
    named = {name for item in operation["security"] for names in item.values() for name in names}
    return next((scope for scope in reversed(TokenScope) if scope in named), None)


def _statuses(path: str, operation: dict[str, Any]) -> list[int]:
    body = operation.get("requestBody", {}).get("content")
    found = [400]
    if "security" in operation:
        found += [429] if path in OPEN else [401, 403, 429]
    if path not in EXEMPT:
        found.append(421)
    if body is not None:
        found += [408, 413]
    if body is not None and "application/json" in body:
        found.append(415)
    if body is not None or "parameters" in operation:
        found.append(422)
    if path not in ALWAYS_UP:
        found.append(503)
    return found


def _as_openai(response: dict[str, Any]) -> dict[str, Any]:
    if PROBLEM_TYPE not in response.get("content", {}):
        return response
    return {**response, "content": {"application/json": {"schema": {"$ref": REF.format(model=ErrorReply.__name__)}}}}
