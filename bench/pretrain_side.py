"""One side of `bench.pretrain`: trains a network of the default size and answers commands on standard input.

`python -m bench.pretrain_side SIDE [THREADS]`. A line with a number on standard input runs that many optimiser steps;
the reply is a line of JSON with the seconds and the peak of anonymous memory so far in bytes. All sides train on the
same random tokens with micro-batch 8 × 256, dropout 0.1, gradient clipping and fused AdamW.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

BATCH, LENGTH, VOCABULARY, WIDTH, LAYERS, HEADS, DROPOUT = 8, 256, 50257, 256, 6, 8, 0.1
Loss = Callable[[Tensor, Tensor], Tensor]
"""Returns the mean loss for input_ids and targets (B, T)."""


def ours() -> tuple[nn.Module, Loss]:
    """Return Tidal's model and the loss that its training uses."""
    from common.config import ModelConfig
    from common.model import TransformerLM
    from common.training.loss import summed_loss

    model = TransformerLM(ModelConfig())
    return model, lambda ids, targets: summed_loss(model, ids, targets) / targets.numel()


def transformers() -> tuple[nn.Module, Loss]:
    """Return the GPT-2 of the package transformers, with its loss."""
    from bench.gpt2 import gpt2
    from common.config import ModelConfig

    model = gpt2(ModelConfig(), tied_head=True)

    def loss(ids: Tensor, targets: Tensor) -> Tensor:
        # The model shifts labels itself, so the logits are used here with the same targets as on the other sides.
        logits = model(ids, use_cache=False).logits
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return model, loss


class PlainBlock(nn.Module):
    """A GPT-2 block: fused qkv projection, torch's attention, feed-forward network with GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        q, k, v = (part.view(B, T, HEADS, -1).transpose(1, 2) for part in self.qkv(self.ln1(x)).split(D, dim=2))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=DROPOUT)
        x = x + self.dropout(self.out(y.transpose(1, 2).reshape(B, T, D)))
        result: Tensor = x + self.dropout(self.down(functional.gelu(self.up(self.ln2(x)))))
        return result


def plain() -> tuple[nn.Module, Loss]:
    """Return a GPT-2 as nanoGPT's users would write it: learned positions, a head tied to the embedding."""
    tokens, positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
    nn.init.normal_(tokens.weight, std=0.02)
    blocks = nn.Sequential(*(PlainBlock() for _ in range(LAYERS)))
    norm, dropout = nn.LayerNorm(WIDTH), nn.Dropout(DROPOUT)
    model = nn.ModuleList([tokens, positions, blocks, norm, dropout])

    def loss(ids: Tensor, targets: Tensor) -> Tensor:
        x = dropout(tokens(ids) + positions(torch.arange(ids.shape[1])))
        logits = functional.linear(norm(blocks(x)), tokens.weight)
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return model, loss


SIDES: dict[str, Callable[[], tuple[nn.Module, Loss]]] = {"tidal": ours, "transformers": transformers, "plain": plain}


class Trainer:
    """Trains one side; with `compiled` its loss is compiled by torch.compile."""

    def __init__(self, side: str, *, compiled: bool) -> None:
        torch.manual_seed(0)
        self.model, loss = SIDES[side]()
        self.model.train()
        self.loss = torch.compile(loss, dynamic=False) if compiled else loss
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.tokens = torch.randint(VOCABULARY, (BATCH, LENGTH + 1))

    def step(self) -> None:
        """Take an optimiser step with one micro-batch."""
        loss = self.loss(self.tokens[:, :-1].contiguous(), self.tokens[:, 1:].contiguous())
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def product_seconds() -> float:
    """Return the time of the matrix products of one step, each in its own shape with the best of four repetitions.

    These are the products of the projections, the feed-forward networks and the head in the forward pass, and the two
    gradients of each. The head is computed for 512 positions at a time, because this is faster.
    """
    shapes = [
        (WIDTH, 3 * WIDTH, LAYERS),
        (WIDTH, WIDTH, LAYERS),
        (WIDTH, 4 * WIDTH, LAYERS),
        (4 * WIDTH, WIDTH, LAYERS),
    ]
    total = sum(count * _three_products(BATCH * LENGTH, inner, outer) for inner, outer, count in shapes)
    return total + _three_products(512, WIDTH, VOCABULARY) * BATCH * LENGTH / 512


def _three_products(rows: int, inner: int, outer: int) -> float:
    x, weight, grad = torch.randn(rows, inner), torch.randn(outer, inner), torch.randn(rows, outer)
    y, d_x, d_weight = torch.empty(rows, outer), torch.empty(rows, inner), torch.empty(outer, inner)
    products: list[Callable[[], Tensor]] = [
        lambda: torch.mm(x, weight.t(), out=y),
        lambda: torch.mm(grad, weight, out=d_x),
        lambda: torch.mm(grad.t(), x, out=d_weight),
    ]
    return sum(min(_seconds(product) for _ in range(4)) for product in products)


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def anonymous_bytes() -> int:
    """Return the anonymous memory of this process in bytes."""
    with Path("/proc/self/status").open() as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))


def main() -> None:
    """Answer commands until standard input ends."""
    side, compiled = sys.argv[1].removesuffix("-compiled"), sys.argv[1].endswith("-compiled")
    if len(sys.argv) > 2:
        torch.set_num_threads(int(sys.argv[2]))
    peak = 0

    def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, anonymous_bytes())
            time.sleep(0.02)

    trainer = None if side == "products" else Trainer(side, compiled=compiled)
    threading.Thread(target=watch, daemon=True).start()
    for line in sys.stdin:
        start = time.perf_counter()
        if trainer is None:
            seconds = sum(product_seconds() for _ in range(int(line)))
        else:
            for _ in range(int(line)):
                trainer.step()
            seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "peak": peak}), flush=True)


if __name__ == "__main__":
    main()
