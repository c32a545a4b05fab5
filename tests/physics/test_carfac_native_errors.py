"""What must not be: wrong arrays for the native kernel are errors of Python, never a crash."""

import dataclasses

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from physics.carfac import Carfac, native, rest
from physics.carfac.native import kernel, loader
from physics.carfac.structures import OUTPUTS

pytestmark = pytest.mark.skipif(
    native.reason_unavailable() is not None, reason=str(native.reason_unavailable())
)
PYTHON_ERRORS = (TypeError, ValueError, jaxtyping.TypeCheckError, jax.errors.JaxRuntimeError)
ARGUMENTS = {
    "audio": ((2, 5, 1), "float32"),
    "rows": ((20, 1, 7), "float32"),
    "agc_rows": ((22, 1), "float32"),
    "window": ((2, 2), "float32"),
    "phase": ((), "int32"),
    "checkpoints": ((1, 2, 20, 1, 7), "float32"),
    "nap": ((2, 5, 1, 7), "float32"),
    "bm": ((0,), "float32"),
    "ohc": ((0,), "float32"),
    "agc": ((0,), "float32"),
    "receptor_potential": ((0,), "float32"),
    "firings": ((0,), "float32"),
    "frames": ((2, 2, 2, 1, 7), "float32"),
    "state": ((2, 20, 1, 7), "float32"),
}
GRADIENTS = {name: ARGUMENTS[name] for name in ("audio", "rows", "agc_rows", "state")}


def backward(arguments, gradients):
    """The handler of the transpose alone, past all that Python would have noticed."""
    call = kernel._Call(Carfac(8000).structure, ("nap",), 2, native.Tuning())
    handler = jax.ffi.ffi_call(
        loader.BACKWARD, [jax.ShapeDtypeStruct(*pair) for pair in gradients.values()]
    )
    return handler(*(jnp.zeros(*pair) for pair in arguments.values()), **call.attributes(5))


def test_the_transpose_takes_what_is_right(x64):
    jax.block_until_ready(backward(ARGUMENTS, GRADIENTS))


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("audio", (2, 5), "float32"),
        ("audio", (2, 5, 1), "float64"),
        ("audio", (2, 5, 1), "int32"),
        ("audio", (2, 6, 1), "float32"),
        ("rows", (20, 1, 8), "float32"),
        ("rows", (20, 2, 7), "float32"),
        ("agc_rows", (22, 1), "float64"),
        ("window", (2, 3), "float32"),
        ("window", (3, 2), "float32"),
        ("phase", (), "int64"),
        ("checkpoints", (1, 2, 20, 1, 6), "float32"),
        ("checkpoints", (2, 2, 20, 1, 7), "float32"),
        ("checkpoints", (0,), "float32"),
        ("nap", (2, 4, 1, 7), "float32"),
        ("nap", (2, 5, 1, 7), "float64"),
        ("bm", (2, 5, 1, 6), "float32"),
        ("firings", (2, 5, 1, 7, 3), "float32"),
        ("frames", (2, 3, 2, 1, 7), "float32"),
        ("frames", (2, 2, 1, 1, 7), "float32"),
        ("frames", (2, 2), "float32"),
        ("state", (2, 20, 1, 6), "float32"),
    ],
)
def test_wrong_arrays_for_the_transpose_are_errors(x64, name, shape, dtype):
    with pytest.raises(jax.errors.JaxRuntimeError, match="CAR-FAC: "):
        jax.block_until_ready(backward(ARGUMENTS | {name: (shape, dtype)}, GRADIENTS))


@pytest.mark.parametrize("name", GRADIENTS)
def test_wrong_results_of_the_transpose_are_errors(x64, name):
    shape, dtype = GRADIENTS[name]
    for wrong in ((shape[:-1], dtype), ((*shape[:-1], shape[-1] + 1), dtype), (shape, "float64")):
        with pytest.raises(jax.errors.JaxRuntimeError, match="CAR-FAC: "):
            jax.block_until_ready(backward(ARGUMENTS, GRADIENTS | {name: wrong}))


@pytest.mark.parametrize("index", range(9))
def test_wrong_results_of_the_forward_pass_are_errors(x64, index):
    """A result of another size or type than the arguments ask for is never written to."""
    call = kernel._Call(Carfac(8000).structure, OUTPUTS[:5], 2, native.Tuning())
    names = ("audio", "rows", "agc_rows", "state", "window", "phase")
    arguments = [jnp.zeros(*ARGUMENTS[name]) for name in names]
    trace = (2, 5, 1, 7)
    good = [trace] * 5 + [(0,), (2, 2, 2, 1, 7), (2, 20, 1, 7), (1, 2, 20, 1, 7)]

    def run(shapes, dtype="float32"):
        results = [jax.ShapeDtypeStruct(s, "float32") for s in shapes]
        results[index] = jax.ShapeDtypeStruct(shapes[index], dtype)
        call_it = jax.ffi.ffi_call(loader.FORWARD, results)
        jax.block_until_ready(call_it(*arguments, **call.attributes(5)))

    run(good)
    wider, deeper = (*good[index][:-1], good[index][-1] + 1), (1, *good[index])
    # Nothing, in whatever shape, is what an output looks like that is not wanted.
    for wrong in (wider, deeper) if 0 not in good[index] else (wider,):
        with pytest.raises(jax.errors.JaxRuntimeError, match="CAR-FAC: "):
            run([*good[:index], wrong, *good[index + 1 :]])
    if 0 not in good[index]:
        with pytest.raises(jax.errors.JaxRuntimeError, match="CAR-FAC: "):
            run(good, "float64")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: a | {"audio": a["audio"].astype(np.int32)},
        lambda a: a | {"audio": a["audio"].astype(np.float16)},
        lambda a: a | {"audio": a["audio"].astype(np.float64)},
        lambda a: a | {"audio": a["audio"][0]},
        lambda a: a | {"audio": a["audio"].repeat(2, 2)},
        lambda a: a | {"audio": a["audio"][:1]},
        lambda a: a | {"state": jax.tree.map(lambda v: v[..., :-1] if v.ndim else v, a["state"])},
        lambda a: a | {"state": dataclasses.replace(a["state"], phase=np.zeros(2, np.int32))},
        lambda a: a | {"coefficients": jax.tree.map(np.float64, a["coefficients"])},
    ],
)
def test_wrong_calls_from_python_are_errors(x64, spoil):
    model = Carfac(8000, min_pole_hz=800)
    coefficients = jax.tree.map(np.float32, jax.jit(lambda: model.design(model.init()))())
    state = rest.initial_state(coefficients, model.structure, 2, settled=False)
    audio = np.zeros((2, 5, 1), np.float32)
    good = {"coefficients": coefficients, "state": state, "audio": audio}

    def run(arguments):
        order = (arguments["coefficients"], model.structure, arguments["state"])
        return jax.block_until_ready(native.run(*order, jnp.asarray(arguments["audio"]), ("nap",)))

    run(good)
    with pytest.raises(PYTHON_ERRORS):
        run(spoil(good))
