"""Reports: database rows with Markdown.

A request that changes a report must contain the report's newest version number. `report_facts` generates reports, and
`report_figures` exports them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session, undefer
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from common.access import Actor
from common.audit import record_change
from common.db import Analysis, Report
from common.errors import ConflictError, NotFoundError
from common.reports import (
    TEMPLATES,
    Chart,
    ChartPart,
    HtmlPart,
    analyses_of,
    check_charts,
    experiments_of,
    render_parts,
)
from services.api.callers import Caller
from services.api.operations.ownership import require_own
from services.api.paging import newest_page
from services.api.schemas.reports import ReportChange, ReportRequest
from tidal_client.vocabulary import REPORT_ID, new_id
from tidal_client.wire.report import (
    PatternList,
    PatternReply,
    RenderReply,
    ReportList,
    ReportPart,
    ReportReply,
    ReportSummary,
)


def reports_page(
    session: Session, *, limit: int, cursor: str | None, search: str | None = None, experiment: str | None = None
) -> ReportList:
    """Return a page of reports, newest first."""
    query = select(Report)
    if search:
        query = query.where(Report.title.icontains(search, autoescape=True))
    if experiment is not None:
        query = query.where(Report.experiment_ids.bool_op("@>")([experiment]))
    page, following = newest_page(session, query, Report.created_at, Report.id, limit=limit, cursor=cursor)
    return ReportList(reports=[ReportSummary.model_validate(row) for (row,) in page], next_cursor=following)


def get_report(session: Session, report_id: str) -> ReportReply:
    """Return a report with its text. Raises NotFoundError."""
    query = select(Report).where(Report.id == report_id).options(undefer(Report.markdown))
    row = session.scalars(query, execution_options={"populate_existing": True}).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no report {report_id!r}")
    return ReportReply.model_validate(row)


def create_report(session: Session, body: ReportRequest, actor: Actor, *, pattern: str | None = None) -> ReportReply:
    """Store a new report. For an invalid chart, raises InvalidInputError with the chart's line."""
    charts = check_charts(body.markdown)
    values = {
        "id": new_id(REPORT_ID),
        "title": body.title,
        "markdown": body.markdown,
        "pattern": pattern,
        "token_id": actor.token_id,
        "experiment_ids": _related_experiments(session, body.experiment_ids or [], charts),
    }
    made = _reply(session, insert(Report).values(**values).returning(Report))
    record_change(session, actor, "report.create", made.id, after=_audited(made))
    return made


def change_report(session: Session, report_id: str, body: ReportChange, actor: Actor) -> ReportReply:
    """Replace title and text of a report.

    Raises ConflictError `report_changed` when `body.version` is not the newest version. A repeated request with the
    same title and text succeeds, because the first reply may have been lost. Raises InvalidInputError for an invalid
    chart, and NotFoundError.
    """
    charts = check_charts(body.markdown)
    row = session.get(Report, report_id, options=[undefer(Report.markdown)], with_for_update=True)
    if row is None:
        raise NotFoundError(f"there is no report {report_id!r}")
    if (row.title, row.markdown) == (body.title, body.markdown) and body.experiment_ids is None:
        return ReportReply.model_validate(row)
    if row.version != body.version:
        raise ConflictError(
            f"report {report_id} was changed meanwhile: its version is {row.version}, not {body.version}; "
            "load the newest version and merge your changes",
            code="report_changed",
            errors=[{"location": "body.version", "message": f"the newest version is {row.version}"}],
        )
    before = _audited(ReportReply.model_validate(row))
    kept = row.experiment_ids if body.experiment_ids is None else body.experiment_ids
    values = {
        "title": body.title,
        "markdown": body.markdown,
        "experiment_ids": _related_experiments(session, kept, charts),
        "version": row.version + 1,
        "updated_at": func.now(),
    }
    changed = _reply(session, update(Report).where(Report.id == report_id).values(**values).returning(Report))
    record_change(session, actor, "report.change", report_id, before=before, after=_audited(changed))
    return changed


def delete_report(session: Session, report_id: str, caller: Caller) -> None:
    """Delete a report. Raises NotFoundError, and ForbiddenError if another token created the report."""
    row = session.get(Report, report_id, options=[undefer(Report.markdown)], with_for_update=True)
    if row is None:
        raise NotFoundError(f"there is no report {report_id!r}")
    require_own(caller, row.token_id, f"report {report_id!r}")
    record_change(session, caller, "report.delete", report_id, before=_audited(ReportReply.model_validate(row)))
    session.execute(delete(Report).where(Report.id == report_id))


def _audited(report: ReportReply) -> dict[str, Any]:
    """Return what the audit log shows of a report: a digest instead of its text."""
    digest = hashlib.sha256((report.markdown or "").encode()).hexdigest()
    return {"title": report.title, "version": report.version, "sha256": digest, "experiments": report.experiment_ids}


def pattern_list() -> PatternList:
    """Return the templates from which reports can be generated."""
    return PatternList(
        patterns=[PatternReply.model_validate({"name": item.name, "about": item.about}) for item in TEMPLATES.values()]
    )


def render_markdown(markdown: str) -> RenderReply:
    """Convert Markdown to a list of parts: safe HTML, charts, and problems in place of invalid charts."""
    parts = []
    for part in render_parts(markdown):
        if isinstance(part, HtmlPart):
            parts.append(ReportPart(kind="html", html=part.html))
        elif isinstance(part, ChartPart):
            chart = part.chart.model_dump(mode="json", by_alias=True)
            parts.append(ReportPart(kind="chart", chart=chart, line=part.line))
        else:
            parts.append(ReportPart(kind="problem", message=part.message, line=part.line))
    return RenderReply(parts=parts)


def _related_experiments(session: Session, given: Iterable[str], charts: Iterable[Chart]) -> list[str]:
    """Return the experiments that a report is about, without duplicates: the given experiments, and the experiments of
    its charts and analyses."""
    found = dict.fromkeys(given)
    analyses = []
    for chart in charts:
        found |= dict.fromkeys(experiments_of(chart))
        analyses += analyses_of(chart)
    if analyses:
        query = (
            select(Analysis.experiment_id).where(Analysis.id.in_(analyses)).distinct().order_by(Analysis.experiment_id)
        )
        found |= dict.fromkeys(session.scalars(query))
    return list(found)


def _reply(session: Session, statement: ReturningInsert[Report] | ReturningUpdate[Report]) -> ReportReply:
    return get_report(session, session.scalars(statement).one().id)
