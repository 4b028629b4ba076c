"""Muon for the matrices of the transformer blocks and AdamW for all other parameters, as one optimiser.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces the momentum of a matrix by the nearest
matrix with orthogonal rows or columns, so that an update changes all directions of the matrix equally. `orthogonalize`
computes it approximately, by five iterations of a polynomial. An embedding, the vocabulary head, a gate or a vector has
no such directions; these are updated by AdamW.

The update is scaled by 0.2 · √max(n, m) for an n × m matrix (Liu et al. 2025, Muon is Scalable for LLM Training,
section 2.2). Its elements then have the root mean square that updates of AdamW usually have, 0.2 to 0.4, so that
learning rate and weight decay of AdamW can be used for both.

torch.optim.Muon computes the iterations in bfloat16. On a CPU without bfloat16 instructions that is slow, and on every
device the result is rounded to 3 digits. It also takes one matrix at a time and cannot hold AdamW's parameters, while a
gradient scaler and a checkpoint expect one optimiser. So this is an implementation of our own: float32, and matrices of
one shape together.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from common.prediction.model_size import MUON_ITERATIONS

MOMENTUM = 0.95
"""Decay rate of the running average of the gradient, as in the original."""
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b and c of the polynomial a x + b x³ + c x⁵, which moves a singular value x in (0, 1] to about 0.7 to 1.2. They
are those of the original; they were chosen for a steep slope at 0."""
EPSILON = 1e-7
MATCHED_RMS = 0.2
"""Root mean square of the elements of an update before the learning rate."""


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return U Vᵀ, up to singular values of about 0.7 to 1.2 in place of 1, for each matrix U S Vᵀ in (N, n, m)."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    # The Frobenius norm is at least the largest singular value.
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=EPSILON)
    for _ in range(MUON_ITERATIONS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    result: Tensor = x.mT if tall else x
    return result


def update_scale(rows: int, columns: int) -> float:
    """Return the factor of an update: an orthogonal matrix has the root mean square 1 / √max(rows, columns)."""
    return MATCHED_RMS * math.sqrt(max(rows, columns))


class MuonWithAdamW(torch.optim.Optimizer):
    """Updates `matrices` by Muon, `decayed` by AdamW, and `plain` by AdamW without weight decay.

    The parameter groups have this order. Each has its own learning rate; group 0 begins with `matrix_lr`.
    """

    _step_supports_amp_scaling = True  # otherwise GradScaler.step would wait for the device

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        decayed: Iterable[nn.Parameter],
        plain: Iterable[nn.Parameter],
        *,
        lr: float,
        matrix_lr: float,
        weight_decay: float,
        betas: tuple[float, float],
    ) -> None:
        # "fused" makes load_state_dict keep AdamW's counter of steps on the device.
        common = {"lr": lr, "betas": betas, "eps": 1e-8, "fused": True, "muon": False}
        groups: list[dict[str, Any]] = [
            {"params": list(matrices), "lr": matrix_lr, "weight_decay": weight_decay, "muon": True},
            {"params": list(decayed), "weight_decay": weight_decay},
            {"params": list(plain), "weight_decay": 0.0},
        ]
        super().__init__(groups, common)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the parameters that have a gradient. Return the result of `closure`, which is called before, or None.

        The gradients must be unscaled and finite; the training checks that before it calls this function.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            (self._muon if group["muon"] else self._adamw)(group, parameters)
        return loss

    def _muon(self, group: dict[str, Any], parameters: Sequence[Tensor]) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for parameter in parameters:
            by_shape[parameter.shape].append(parameter)
        for (rows, columns), same in by_shape.items():
            for parameter in same:
                if not self.state[parameter]:
                    self.state[parameter]["momentum"] = torch.zeros_like(parameter)
            gradients = [parameter.grad for parameter in same if parameter.grad is not None]
            averages = [self.state[parameter]["momentum"] for parameter in same]
            torch._foreach_lerp_(averages, gradients, 1.0 - MOMENTUM)
            # Nesterov's momentum: the gradient counts once more than in the running average.
            ahead = torch._foreach_lerp(gradients, averages, MOMENTUM)
            updates = orthogonalize(torch.stack(ahead))
            torch._foreach_mul_(same, 1.0 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(same, list(updates.unbind()), alpha=-group["lr"] * update_scale(rows, columns))

    def _adamw(self, group: dict[str, Any], parameters: Sequence[Tensor]) -> None:
        if not parameters:
            return
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            list(parameters),
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
