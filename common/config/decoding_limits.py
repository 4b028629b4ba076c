"""What temperature and repetition penalty may be, wherever they are given: a request, a configuration, a call.

Beyond these ends float32 overflows on logits that a healthy model gives. Leaves out: the schemas that apply them.
"""

from __future__ import annotations

LEAST_TEMPERATURE = 0.001
"""Of tokens that are drawn; where 0 is taken, it asks for the likeliest token."""
MOST_TEMPERATURE = 100.0
LEAST_REPETITION_PENALTY = 0.01
MOST_REPETITION_PENALTY = 100.0
