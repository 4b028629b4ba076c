"""The parts of the controller that training, evaluation and serving share: observation, policy and modulation map."""

from common.controller.exponentials import exponentials
from common.controller.history import ABSENT, TokenHistory, pad
from common.controller.modulation import (
    DecodingParameterRows,
    DecodingParameters,
    decoding_parameter_rows,
    decoding_parameters,
)
from common.controller.observation import OBSERVATION_DIM, build_observation, build_observations
from common.controller.packed_actor import PackedActor
from common.controller.policy import GatingPolicy, PolicyEvaluation, PolicyOutput, PolicyStep, require_same_vocabulary
from common.controller.policy_file import load_policy, policy_from_state_dict

__all__ = [
    "ABSENT",
    "OBSERVATION_DIM",
    "DecodingParameterRows",
    "DecodingParameters",
    "GatingPolicy",
    "PackedActor",
    "PolicyEvaluation",
    "PolicyOutput",
    "PolicyStep",
    "TokenHistory",
    "build_observation",
    "build_observations",
    "decoding_parameter_rows",
    "decoding_parameters",
    "exponentials",
    "load_policy",
    "pad",
    "policy_from_state_dict",
    "require_same_vocabulary",
]
