"""A token with the scope submit may delete what it has created; only the scope admin may delete anything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.api.access import bearer, make_named
from tests.integration.api.conftest import TINY_CONFIG, Api
from tests.integration.api.contract_resources import ANALYSIS


def ended_job(api: Api, headers: dict[str, str]) -> dict[str, Any]:
    body = {"type": "lm-training", "config": TINY_CONFIG}
    job = api.http.post("/api/jobs", json=body, headers=headers).raise_for_status().json()
    return dict(api.http.post(f"/api/jobs/{job['id']}/cancel", headers=headers).raise_for_status().json())


def experiment(api: Api, headers: dict[str, str]) -> str:
    return f"/api/experiments/{ended_job(api, headers)['experimentId']}"


def checkpoint(api: Api, headers: dict[str, str]) -> str:
    made = ended_job(api, headers)["experimentId"]
    (api.experiment_folder(made) / "model.safetensors").write_bytes(b"weights")
    return f"/api/experiments/{made}/checkpoints/model.safetensors"


def dataset(api: Api, headers: dict[str, str]) -> str:
    made = api.http.post("/api/datasets?name=tale.txt", content=b"Once.\n" * 9, headers=headers).raise_for_status()
    api.http.post(f"/api/jobs/{made.json()['job']['id']}/cancel", headers=headers).raise_for_status()
    return "/api/datasets/tale"


def report(api: Api, headers: dict[str, str]) -> str:
    made = api.http.post("/api/reports", json={"title": "a", "markdown": "b"}, headers=headers).raise_for_status()
    return f"/api/reports/{made.json()['id']}"


def analysis(api: Api, headers: dict[str, str]) -> str:
    path = f"{experiment(api, headers)}/analyses"
    return f"/api/analyses/{api.http.post(path, json={'result': ANALYSIS}, headers=headers).json()['id']}"


def analyses(api: Api, headers: dict[str, str]) -> str:
    path = f"{experiment(api, headers)}/analyses"
    api.http.post(path, json={"result": ANALYSIS}, headers=headers).raise_for_status()
    return path


@pytest.mark.parametrize("make", [experiment, checkpoint, dataset, report, analysis, analyses])
def test_only_the_creator_and_administrators_delete(api: Api, make: Callable[[Api, dict[str, str]], str]) -> None:
    ada, bob = (bearer(make_named(api, name, "submit")["token"]) for name in ("Ada", "Bob"))
    chief = bearer(make_named(api, "chief", "admin")["token"])
    for creator, stranger in ((ada, bob), (bob, None), (chief, ada)):
        path = make(api, creator)
        if stranger is not None:
            refused = api.http.delete(path, headers=stranger)
            assert (refused.status_code, refused.json()["code"]) == (403, "not_yours")
            assert api.http.get(path).status_code == 200
        deleted_by = chief if creator is ada else creator
        assert api.http.delete(path, headers=deleted_by).status_code in (200, 204)
    path = make(api, dict(api.admin.headers))
    assert api.http.delete(path, headers=ada).status_code == 403
    assert api.admin.delete(path).status_code in (200, 204)


def test_others_may_stop_a_job_and_edit_what_they_may_not_delete(api: Api) -> None:
    ada, bob = (bearer(make_named(api, name, "submit")["token"]) for name in ("Ada", "Bob"))
    job = api.http.post("/api/jobs", json={"type": "lm-training", "config": TINY_CONFIG}, headers=ada).json()
    assert api.http.patch(f"/api/experiments/{job['experimentId']}", json={"name": "x"}, headers=bob).status_code == 200
    assert api.http.post(f"/api/jobs/{job['id']}/cancel", headers=bob).json()["status"] == "cancelled"
