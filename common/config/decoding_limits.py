"""What may be asked of the generation of texts: ends of temperature and repetition penalty, size of a request.

Beyond these ends of temperature and penalty float32 overflows on logits that a healthy model gives; they hold wherever
the two are given: a request, a configuration, a call. Leaves out: the schemas that apply them.
"""

from __future__ import annotations

LEAST_TEMPERATURE = 0.001
"""Of tokens that are drawn; where 0 is taken, it asks for the likeliest token."""
MOST_TEMPERATURE = 100.0
LEAST_REPETITION_PENALTY = 0.01
MOST_REPETITION_PENALTY = 100.0
MAX_PROMPT_TOKENS = 65_536
"""Tokens of a prompt times its texts in one request to a generator, which holds each of these tokens."""
