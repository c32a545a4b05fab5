"""Makes JAX strict, and checks the shapes and types of the packages while they are tested."""

import os

# Read when the libraries load, hence before any import below. The suite is a CPU suite (results
# are compared bit for bit), and torch's own threads would only compete with XLA's.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import pytest
from jaxtyping import install_import_hook

install_import_hook(["hybrid", "physics", "learners", "data"], "beartype.beartype")

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def x64():
    """Switches 64-bit types on for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def key():
    """A fixed random key."""
    return jax.random.key(0)
