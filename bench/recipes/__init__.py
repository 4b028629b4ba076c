"""Measures training recipes: each arm is tuned with the same budget, then trained with three seeds.

    python -m bench.recipes --train train.txt --valid valid.txt --out recipes.jsonl             # hours; resumable
    python -m bench.recipes --train … --valid … --out recipes.jsonl --arms gpt2,modern --stop-after 10000
    python -m bench.recipes --out recipes.jsonl --report
    python -m bench.recipes --self-test                                                         # about a minute

The files are text with documents separated by `<|endoftext|>`. Every finished run is a line of the output file; a later
call continues with the runs that are missing. A run is identified by everything that determines its result (settings,
texts, budget, seed), so that a changed arm is measured again and arms with equal settings share their runs.

* `arms.py`: the arms. One is the GPT-2 of transformers in a plain loop (`peer.py`); the others train through
  `common.training.pretrain`.
* `campaign.py`: which runs are missing. `journal.py`: the output file. `run_one.py`: the process of one run.
* `report.py`: medians, intervals and verdicts.
"""
