"""Exists to turn a network's numbers into amplitudes: positive, with a slope at every loudness."""

from __future__ import annotations

import math

import jax
from jaxtyping import Array, Float


def scale_function(x: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """2 sigmoid(x)^ln 10 + 1e-7: about a factor of 10 for each unit of x far below 0, at most 2.

    Engel et al. (2020), DDSP, ICLR, section B.5. As an exponential of a logarithm, for the power's
    own gradient is 0 / 0 where the sigmoid underflows.
    """
    return 2 * jax.numpy.exp(math.log(10) * jax.nn.log_sigmoid(x)) + 1e-7
