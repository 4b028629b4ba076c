"""Tools that generate text and analyse the modulation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from mcp.server.mcpserver import Context
from pydantic import Field

from services.mcp.access import Access
from services.mcp.tools.arguments import BUDGET, MaxTokens
from services.mcp.tools.experiments import without_empty

Reference = Annotated[str, Field(description="EXPERIMENT/final, EXPERIMENT/best, or a reference of get_checkpoints.")]
Controller = Annotated[str | None, Field(description="The controller, for gating mode learned: EXPERIMENT/final.")]


class GenerationTools:
    """Tools that use models."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def generate_text(
        self,
        context: Context[Any, Any],
        checkpoint: Reference,
        prompt: str,
        new_tokens: Annotated[int, Field(ge=1, le=4096, description="Maximum number of tokens to generate.")] = 100,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float | None = None,
        gating_mode: Literal["none", "fixed", "random", "learned"] | None = None,
        modulation: Annotated[float | None, Field(ge=0, le=1)] = None,
        rl_checkpoint: Controller = None,
        stop: list[str] | None = None,
        seed: int | None = None,
        with_tokens: Annotated[bool, Field(description="Also return each token with modulation and entropy.")] = False,
        max_tokens: MaxTokens = BUDGET,
    ) -> str:
        """Continue a text with a trained model. Subject to the rate limit of generation without a token."""
        reply = await self._access.client(context).generate(
            checkpoint,
            prompt,
            max_tokens=new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            gating_mode=gating_mode,
            modulation=modulation,
            rl_checkpoint=rl_checkpoint,
            stop=stop,
            seed=seed,
        )
        result = {
            "text": reply.text,
            "tokensGenerated": reply.tokens_generated,
            "finishReason": reply.finish_reason,
            "truncated": reply.truncated or None,
            "effective": reply.effective,
            "tokens": [
                without_empty({name: token.get(name) for name in ("text", "modulation", "entropy", "logProb")})
                for token in reply.trajectory
            ]
            if with_tokens
            else None,
        }
        return self._access.reply(without_empty(result), max_tokens)

    async def analyze_trajectories(
        self,
        context: Context[Any, Any],
        checkpoint: Reference,
        prompts: Annotated[list[str], Field(min_length=1, max_length=50)],
        kind: Annotated[
            Literal["single", "batch", "sweep"] | None, Field(description="null: single for one prompt, else batch.")
        ] = None,
        gating_mode: Literal["fixed", "random", "learned"] = "learned",
        modulation: Annotated[float | None, Field(ge=0, le=1)] = None,
        rl_checkpoint: Controller = None,
        samples_per_prompt: Annotated[int | None, Field(ge=1, le=16)] = None,
        new_tokens: Annotated[int | None, Field(ge=1, le=4096)] = None,
        seed: int | None = None,
        bootstrap: bool = False,
        include_extreme_values: bool = False,
        max_tokens: MaxTokens = 2 * BUDGET,
    ) -> str:
        """Generate texts from prompts and analyse what the modulation does: statistics, phases, variance, sweep."""
        found = await self._access.client(context).analyze(
            checkpoint,
            prompts,
            kind=kind,
            gating_mode=gating_mode,
            modulation=modulation,
            rl_checkpoint=rl_checkpoint,
            samples_per_prompt=samples_per_prompt,
            max_tokens=new_tokens,
            seed=seed,
            bootstrap=bootstrap,
            include_extreme_values=include_extreme_values,
        )
        result = {
            "kind": found.kind,
            "tokensGenerated": found.tokens_generated,
            "batch": found.batch_analysis,
            "sweep": found.sweep_analysis,
            "prompts": [
                {"prompt": each.prompt, "analysis": each.analysis, "texts": [sample.text for sample in each.samples]}
                for each in found.trajectories
            ],
        }
        return self._access.reply(without_empty(result), max_tokens, hint="raise max_tokens, or analyse fewer prompts")
