"""Tools that describe what can be trained: the model family with its job types, presets and configuration schema."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import BaseModel, Field

from common.config.analysis import AnalysisConfig
from common.config.lm import EvaluationConfig, LMConfig
from common.config.rl import AblationConfig, RLConfig
from common.errors import NotFoundError
from services.mcp.access import Access
from services.mcp.summary import select
from services.mcp.tools.arguments import BUDGET, MaxTokens, Part
from tidal_client.vocabulary import RESUMABLE, JobType

FAMILY = "tidal"
ABOUT = "Decoder-only language models with a gate that modulates each token, and controllers that steer the decoding."
JOB_TYPES: dict[JobType, tuple[str, type[BaseModel] | None]] = {
    JobType.LM_TRAINING: ("Trains a language model; fine-tunes or continues with `checkpoint`.", LMConfig),
    JobType.RL_TRAINING: ("Trains a controller for the language model in `checkpoint`.", RLConfig),
    JobType.EVALUATION: ("Evaluates the language model in `checkpoint`.", EvaluationConfig),
    JobType.HEADROOM: ("Measures what a controller could gain over the best constant modulation.", RLConfig),
    JobType.ABLATION: ("Compares the controller in `rl_checkpoint` with fixed and random modulation.", AblationConfig),
    JobType.ANALYSIS: ("Analyses the modulation in many texts.", AnalysisConfig),
    JobType.DATASET: ("Tokenises the corpus in `data`.", None),
}
"""{job type: (what it does, type of its `config`)}."""


class ManifestTools:
    """Tools that describe the model family."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def list_plugins(self, context: Context[Any, Any], max_tokens: MaxTokens = BUDGET) -> str:
        """List the model families that can be trained. There is one, with several types of jobs."""
        types = {str(kind): about for kind, (about, _) in JOB_TYPES.items()}
        return self._access.reply({"plugins": [{"name": FAMILY, "about": ABOUT, "jobTypes": types}]}, max_tokens)

    async def get_plugin_manifest(
        self,
        context: Context[Any, Any],
        name: str = FAMILY,
        job_type: Annotated[str | None, Field(description="Describe the `config` of this job type.")] = None,
        part: Part = None,
        max_tokens: MaxTokens = 2 * BUDGET,
    ) -> str:
        """Describe the model family: job types and presets; with `job_type`, every value of its configuration.

        `part` selects a section, such as `training` or `training.learning_rate`.
        """
        if name != FAMILY:
            raise NotFoundError(f"there is no model family {name!r}; there is {FAMILY!r}")
        if job_type is not None:
            schema = next((found for kind, (_, found) in JOB_TYPES.items() if kind == job_type), None)
            if schema is None:
                known = ", ".join(kind for kind, (_, found) in JOB_TYPES.items() if found is not None)
                raise NotFoundError(f"job type {job_type!r} has no configuration; those that have: {known}")
            found = select(describe(schema), part)
            return self._access.reply({"jobType": job_type, "config": found}, max_tokens, hint=_HINT)
        files = await self._access.client(context).configs()
        result = {
            "name": FAMILY,
            "jobTypes": [
                {"type": kind, "about": about, "canBePaused": kind in RESUMABLE}
                for kind, (about, _) in JOB_TYPES.items()
            ],
            "presets": [{"file": file.name, "kind": file.kind} for file in files if file.problem is None],
        }
        return self._access.reply(result, max_tokens, hint=_HINT)


_HINT = "name a `part`, such as `training`"


def describe(section: type[BaseModel]) -> dict[str, Any]:
    """Return {field: {type, default, about}} of a section of the configuration, and of nested sections likewise."""
    found: dict[str, Any] = {}
    schema = section.model_json_schema()["properties"]
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found[name] = describe(field.annotation)
            continue
        text = schema[name]
        bounds = {key: text[key] for key in _BOUNDS if key in text}
        found[name] = {"type": _type_name(text), "default": text.get("default"), **bounds, "about": field.description}
    return found


_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "enum", "pattern")


def _type_name(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type_name(option) for option in schema["anyOf"]))
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[1]
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    return str(schema.get("type", "any"))
