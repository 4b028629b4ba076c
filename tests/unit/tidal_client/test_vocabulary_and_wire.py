"""tidal_client imports no server code, matches the OpenAPI document, and accepts keys and values of later versions."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import BaseModel

import tidal_client
from common.config import Settings
from services.api.app import create_app
from tests.unit import api_documents as documents
from tidal_client.vocabulary import (
    ACTIVE,
    LIVE,
    TERMINAL,
    DesiredState,
    Gating,
    GatingMode,
    JobStatus,
    JobType,
    ModulatedGating,
    Signal,
    new_id,
    parse_utc,
    utc_text,
)
from tidal_client.wire.analysis import AnalysisResult
from tidal_client.wire.base import extend_reply
from tidal_client.wire.job import JobDetail, JobReply
from tidal_client.wire.sampling import SamplingParameters, SamplingRequest


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    found: dict[str, Any] = create_app(Settings(), "administrator-token").openapi()["components"]["schemas"]
    return found


@pytest.mark.parametrize("kind", [JobStatus, JobType, Signal])
def test_the_enumerations_of_the_openapi_document_are_those_of_the_vocabulary(
    schemas: dict[str, Any], kind: Any
) -> None:
    assert schemas[kind.__name__]["enum"] == [word.value for word in kind]
    assert schemas["GenerateRequest"]["properties"]["gatingMode"]["enum"] == [mode.value for mode in GatingMode]


def test_a_job_of_the_client_has_every_field_of_the_openapi_document(schemas: dict[str, Any]) -> None:
    for model in (JobReply, JobDetail):
        names = [field.alias for field in model.model_fields.values()]
        assert names == list(schemas[model.__name__]["properties"])
    document = documents.job(notBefore=documents.TIME, infraRestarts=2)
    job = JobDetail.model_validate(document)
    assert (job.updated_at, job.not_before, job.infra_restarts) == (job.created_at, parse_utc(documents.TIME), 2)


def test_unknown_keys_of_a_later_api_are_ignored_and_unknown_values_are_kept() -> None:
    later = documents.job(status="hibernating", type="distillation", signals=["wake"], colour="blue")
    job = JobDetail.model_validate(later)
    assert (job.status, job.type, job.signals, job.ended) == ("hibernating", "distillation", ["wake"], False)
    assert isinstance(job.status, JobStatus) and job.status.value == "hibernating"
    dumped = job.model_dump(mode="json", by_alias=True)
    assert (dumped["status"], dumped["type"], dumped["signals"]) == ("hibernating", "distillation", ["wake"])
    assert "colour" not in dumped
    with pytest.raises(ValueError, match="status"):
        JobDetail.model_validate(documents.job(status=3))


def test_the_client_loads_no_server_code_and_its_vocabulary_no_http_library() -> None:
    vocabulary = "import tidal_client, tidal_client.vocabulary, tidal_client.errors, tidal_client.wire.job"
    everything = "import tidal_client; [getattr(tidal_client, name) for name in tidal_client.__all__]"
    for script, forbidden in (
        (vocabulary, {"common", "services", "httpx", "psutil"}),
        (everything, {"common", "services"}),
    ):
        listed = f"{script}; import sys; print(*sorted(sys.modules))"
        loaded = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, check=True).stdout
        assert "tidal_client.vocabulary" in loaded.split()
        assert not forbidden & {name.split(".")[0] for name in loaded.split()}


def test_every_public_name_can_be_loaded() -> None:
    assert sorted(tidal_client.__all__) == sorted(tidal_client._EXPORTS)
    for name in tidal_client.__all__:
        assert getattr(tidal_client, name) is not None
    with pytest.raises(AttributeError, match="NoSuchName"):
        _ = tidal_client.NoSuchName


def test_the_groups_of_statuses_are_consistent() -> None:
    assert TERMINAL.isdisjoint(LIVE) and set(JobStatus) == TERMINAL | LIVE
    assert ACTIVE < LIVE
    assert list(DesiredState) == ["run", "pause", "complete", "stop"]  # in order of severity


def test_ids_and_times_have_one_form() -> None:
    assert len(new_id("job_")) == 20 and new_id("job_") != new_id("job_")
    moment = parse_utc("2026-01-31T13:00:00.5+01:00")
    assert utc_text(moment) == "2026-01-31T12:00:00.500000Z"
    assert utc_text(moment, "milliseconds") == "2026-01-31T12:00:00.500Z"
    assert utc_text(moment.replace(tzinfo=None)) == utc_text(moment)
    assert parse_utc(utc_text(moment)) == moment == parse_utc("2026-01-31T12:00:00.5")


class Gated(BaseModel):
    gating_mode: Gating
    chosen: ModulatedGating = GatingMode.LEARNED


def test_an_unknown_gating_mode_is_refused_with_the_list_of_modes() -> None:
    with pytest.raises(ValueError, match="Input should be 'none', 'fixed', 'random' or 'learned'"):
        Gated.model_validate({"gating_mode": "zz"})
    with pytest.raises(ValueError, match="Input should be 'fixed', 'random' or 'learned'"):
        Gated.model_validate({"gating_mode": "fixed", "chosen": "none"})
    assert Gated.model_validate({"gating_mode": "fixed"}).gating_mode is GatingMode.FIXED


def test_stop_strings_of_a_request_are_a_list() -> None:
    with pytest.raises(ValueError, match="Input should be a valid list"):
        SamplingRequest.model_validate({"stop": 7})
    with pytest.raises(ValueError, match="List should have at most 4 items"):
        SamplingRequest.model_validate({"stop": list("abcde")})
    request = SamplingRequest.model_validate({"stop": ["a"]})
    assert SamplingParameters.model_validate(request.sampling()).stop == ("a",)


def test_an_analysis_of_an_unknown_kind_is_read() -> None:
    document = {"kind": "heatmap", "request": {}, "trajectories": [], "tokensGenerated": 0, "elapsedMs": 1.0}
    assert AnalysisResult.model_validate(document).kind == "heatmap"


def test_a_reply_extends_without_a_second_validation() -> None:
    reply = JobReply.model_validate(documents.job())
    detail = extend_reply(JobDetail, reply, payload={"a": 1}, what_next="It waits.")
    validated = JobDetail.model_validate({**documents.job(), "payload": {"a": 1}, "whatNext": "It waits."})
    assert detail.model_dump(mode="json", by_alias=True) == validated.model_dump(mode="json", by_alias=True)
    assert detail.model_dump_json(by_alias=True) == validated.model_dump_json(by_alias=True)
