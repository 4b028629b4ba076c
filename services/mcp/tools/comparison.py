"""Tools that compare experiments: their configurations and results, and the best ones by a query."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Sequence
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import Field

from common.errors import InvalidInputError, NotFoundError
from common.metrics.names import VALIDATION_LOSS
from services.mcp.access import Access
from services.mcp.tools.arguments import BUDGET, Limit, MaxTokens
from services.mcp.tools.experiments import brief_experiment, figures, known_metrics, without_empty
from tidal_client import AsyncClient, ExperimentReply

MOST_COMPARED = 20
MOST_SEARCHED = 500
"""Number of the newest experiments that best_experiments looks at."""
AT_ONCE = 8
"""Number of requests at a time."""
NUMBERS_PER_RESULT = 40


class ComparisonTools:
    """Tools that compare experiments."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def compare_experiments(
        self,
        context: Context[Any, Any],
        experiment_ids: Annotated[list[str], Field(min_length=2, max_length=MOST_COMPARED)],
        keys: Annotated[
            list[str] | None, Field(description="Metrics to compare; null for those that all of them have.")
        ] = None,
        max_tokens: MaxTokens = 2 * BUDGET,
    ) -> str:
        """Compare experiments: the values of the configuration that differ, and last and best value of each metric."""
        client = self._access.client(context)
        ids = list(dict.fromkeys(experiment_ids))
        found = await gather(ids, lambda experiment_id: _facts(client, experiment_id, keys))
        configs = {each["id"]: each.pop("config") for each in found}
        paths = sorted({path for config in configs.values() for path in config})
        values = {path: {each: configs[each].get(path) for each in ids} for path in paths}
        differing = {path: each for path, each in values.items() if len(set(map(repr, each.values()))) > 1}
        common = set.intersection(*({*each["metrics"]} for each in found))
        for each in found:
            each["metrics"] = {key: value for key, value in each["metrics"].items() if keys or key in common}
        result = {"experiments": found, "differentConfiguration": differing}
        return self._access.reply(result, max_tokens, hint="name fewer experiments, or metrics in `keys`")

    async def best_experiments(
        self,
        context: Context[Any, Any],
        metric: Annotated[str, Field(description="A metric, or with `evaluation.` a number of the evaluation.")] = (
            VALIDATION_LOSS
        ),
        highest: Annotated[bool, Field(description="Whether a higher value is better.")] = False,
        where: Annotated[
            dict[str, Any] | None,
            Field(
                description="Conditions on the configuration, by dotted path: a value, or a mapping with min or max, "
                'such as {"model.d_model": 64, "training.learning_rate": {"max": 0.001}}.'
            ),
        ] = None,
        kind: str | None = None,
        tag: str | None = None,
        search: str | None = None,
        status: Annotated[str | None, Field(description="null also considers experiments that still run.")] = (
            "completed"
        ),
        limit: Limit = 10,
        max_tokens: MaxTokens = BUDGET,
    ) -> str:
        """Find the best experiments by a metric, among those whose configuration meets all conditions.

        Looks at the newest 500 experiments that match kind, tag, search and status.
        """
        client = self._access.client(context)
        listed = await client.experiments(kind=kind, tag=tag, search=search, status=status, limit=MOST_SEARCHED)
        conditions = where or {}

        async def rated(experiment: ExperimentReply) -> dict[str, Any] | None:
            with contextlib.suppress(NotFoundError):  # deleted meanwhile, or without this result
                await client.experiment(experiment.id)
                config = await _flat_config(client, experiment.id) if conditions else {}
                if all(meets(config.get(path), condition) for path, condition in conditions.items()):
                    value = await _value(client, experiment.id, metric, highest=highest)
                    if value is not None:
                        shown = {path: config.get(path) for path in conditions}
                        return without_empty(
                            {**brief_experiment(experiment), "value": value[1], "step": value[0], "config": shown}
                        )
            return None

        found = [each for each in await gather(listed, rated) if each is not None]
        found.sort(key=lambda each: each["value"], reverse=highest)
        result = {"metric": metric, "considered": len(listed), "withValue": len(found), "best": found[:limit]}
        return self._access.reply(result, max_tokens)


async def gather(items: Sequence[Any], work: Any) -> list[Any]:
    """Return the results of `work(item)`, in order, with at most AT_ONCE of them running."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(item: Any) -> Any:
        async with places:
            return await work(item)

    return list(await asyncio.gather(*map(one, items)))


def flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Return {dotted path: value} of a nested configuration. Lists are values."""
    if not isinstance(value, dict):
        return {path: value}
    return {
        key: item for name, part in value.items() for key, item in flatten(part, f"{path}.{name}".lstrip(".")).items()
    }


def meets(value: Any, condition: Any) -> bool:
    """Return whether a value of a configuration meets a condition: equal to it, or within its `min` and `max`.

    Raises InvalidInputError for a mapping with other keys.
    """
    if not isinstance(condition, dict):
        return bool(value == condition)
    if unknown := set(condition) - {"min", "max"}:
        raise InvalidInputError(f"a condition has the keys min and max, not {', '.join(sorted(unknown))}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return bool(condition.get("min", -math.inf) <= value <= condition.get("max", math.inf))


async def _facts(client: AsyncClient, experiment_id: str, keys: list[str] | None) -> dict[str, Any]:
    experiment = await client.experiment(experiment_id)
    metrics: dict[str, Any] = {}
    for rl, names in ((False, experiment.metric_names), (True, experiment.rl_metric_names)):
        if names:
            wanted = [key for key in keys if key in names] if keys is not None else None
            if wanted == []:
                continue
            found = await known_metrics(client, experiment_id, rl=rl, keys=wanted)
            for key in found.keys:
                if found.series.get(key):
                    each = figures(found, key, 0)
                    metrics[key] = {name: each[name] for name in ("last", "lowest", "highest")}
    facts = {**brief_experiment(experiment), "metrics": metrics, "config": await _flat_config(client, experiment_id)}
    if "evaluation" in experiment.results:
        numbers = flatten(await client.evaluation(experiment_id))
        facts["evaluation"] = dict([each for each in numbers.items() if _is_number(each[1])][:NUMBERS_PER_RESULT])
    return facts


async def _flat_config(client: AsyncClient, experiment_id: str) -> dict[str, Any]:
    with contextlib.suppress(NotFoundError):
        found = await client.experiment_config(experiment_id)
        return {**flatten(found.config or {}), **flatten(found.rl_config or {})}
    return {}


async def _value(client: AsyncClient, experiment_id: str, metric: str, *, highest: bool) -> tuple[Any, float] | None:
    """Return (step, value): the best value of a metric, or a number of the evaluation; None without a value."""
    name = metric.removeprefix("evaluation.")
    if name != metric:
        value = flatten(await client.evaluation(experiment_id)).get(name)
        return (None, float(value)) if value is not None and _is_number(value) else None
    for rl in (False, True):
        found = await known_metrics(client, experiment_id, rl=rl, keys=[metric])
        if found.series.get(metric):
            best = figures(found, metric, 0)["highest" if highest else "lowest"]
            return best[0], best[1]
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
