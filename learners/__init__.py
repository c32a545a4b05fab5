"""Networks on top of features: Flax Linen modules, and NNX modules through an adapter."""

from learners.base import accepts_mask, call_learner, init_learner
from learners.conv import ConvNet
from learners.gru import GRU
from learners.mask_net import MaskNet
from learners.masking import masked_max, masked_mean, random_stripes
from learners.mlp import MLP
from learners.nnx_adapter import NnxLearner
from learners.physics_layer import PhysicsLayer, keep_bounds
from learners.strf_cnn import StrfCnn
from learners.transformer import Transformer

__all__ = [
    "GRU",
    "MLP",
    "ConvNet",
    "MaskNet",
    "NnxLearner",
    "PhysicsLayer",
    "StrfCnn",
    "Transformer",
    "accepts_mask",
    "call_learner",
    "init_learner",
    "keep_bounds",
    "masked_max",
    "masked_mean",
    "random_stripes",
]
