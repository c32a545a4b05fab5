"""Networks on top of features: Flax Linen modules, and NNX modules through an adapter."""

from learners.base import accepts_mask, call_learner, init_learner
from learners.conv import ConvNet
from learners.masking import masked_max, masked_mean, random_stripes
from learners.nnx_adapter import NnxLearner
from learners.strf_cnn import StrfCnn

__all__ = [
    "ConvNet",
    "NnxLearner",
    "StrfCnn",
    "accepts_mask",
    "call_learner",
    "init_learner",
    "masked_max",
    "masked_mean",
    "random_stripes",
]
