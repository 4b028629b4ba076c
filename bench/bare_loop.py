"""The reference for a supervised training: a plain torch loop with the same model and data but without any service.

`python -m bench.bare_loop` reads {"config": …, "data_dir": …} from standard input and writes a line of JSON
(step, time, loss) per update to standard output until it is killed. It does not validate, write checkpoints or change
the learning rate.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from torch.nn.utils import clip_grad_norm_

from common.config.lm import LMConfig
from common.data import ChunkLoader
from common.model import TransformerLM
from common.training.hooks import NullHooks
from common.training.loading import load_corpus
from common.training.loss import summed_loss


def main() -> None:
    """Train and print a line of JSON per update until this process is killed."""
    request = json.load(sys.stdin)
    config = LMConfig.model_validate(request["config"])
    training = config.training
    corpus = load_corpus(config.data, Path(request["data_dir"]), NullHooks())
    torch.set_num_threads(training.threads or torch.get_num_threads())
    torch.manual_seed(training.seed)
    model = TransformerLM(config.model)
    loader = ChunkLoader(
        corpus.train[0 : len(corpus.train)],
        context_length=config.model.context_length,
        batch_size=training.micro_batch_size,
        seed=training.seed,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, fused=True)
    model.train()
    step = 0
    while True:
        input_ids, targets = loader.next_batch()
        loss = summed_loss(model, input_ids, targets) / targets.numel()
        torch.autograd.backward(loss)
        value = loss.item()
        clip_grad_norm_(model.parameters(), training.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        sys.stdout.write(json.dumps({"step": step, "time": time.time(), "loss": value}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
