"""The native kernel in use: chosen or not, transformed by JAX, from many threads, with errors."""

import concurrent.futures
import functools
import logging
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics.carfac import Carfac, kernels, native
from physics.carfac.native import kernel, loader

NATIVE = pytest.mark.skipif(
    native.reason_unavailable() is not None, reason=str(native.reason_unavailable())
)
MODEL = Carfac(8000, min_pole_hz=300, kernel="native")


@pytest.fixture
def audio():
    return 0.1 * jax.random.normal(jax.random.key(1), (6, 200))


@pytest.fixture
def forget():
    """Lets the library be looked for anew, before and after."""
    cached = (loader.reason_unavailable, loader.warn_once)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


def mean(params, audio):
    return jnp.mean(MODEL.apply(params, audio)[0] ** 2)


@NATIVE
def test_auto_takes_it_on_the_cpu():
    assert kernels.choose("auto") == "native"
    assert kernels.choose("xla") == "xla"


@NATIVE
def test_vmap_and_scan_equal_a_loop(audio):
    params = MODEL.init()
    slope = jax.jit(jax.grad(mean, argnums=(0, 1)))
    pairs = audio.reshape(3, 2, 200)
    expected = [slope(params, pair) for pair in pairs]
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *expected)
    mapped = jax.jit(jax.vmap(slope, in_axes=(None, 0)))(params, pairs)
    scanned = jax.jit(lambda p, xs: jax.lax.scan(lambda _, x: (0, slope(p, x)), 0, xs)[1])
    for given in (mapped, scanned(params, pairs)):
        for a, b in zip(jax.tree.leaves(given), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(jnp.max(jnp.abs(b))))


@NATIVE
def test_rematerialisation_and_donation(audio):
    params = MODEL.init()
    expected = jax.grad(mean, argnums=1)(params, audio)
    again = jax.grad(jax.checkpoint(mean), argnums=1)(params, audio)
    np.testing.assert_array_equal(again, expected)

    @functools.partial(jax.jit, donate_argnums=1)
    def step(params, audio):
        return audio - jax.grad(mean, argnums=1)(params, audio)

    copy = jnp.array(audio)
    np.testing.assert_allclose(step(params, copy), audio - expected, rtol=0, atol=1e-5)
    assert copy.is_deleted()


@NATIVE
def test_many_threads_at_once(audio):
    """More calls than the pool has threads, each of which wants helpers: none waits for another."""
    params = MODEL.init()
    slope = jax.jit(jax.grad(mean, argnums=1))
    expected = slope(params, audio)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for given in pool.map(lambda _: slope(params, audio), range(40)):
            np.testing.assert_array_equal(given, expected)


SHARDED = """
    import functools, jax, jax.numpy as jnp, numpy as np
    from jax.sharding import AxisType
    from physics.carfac import Carfac

    mesh = jax.make_mesh((2,), ("clips",), axis_types=(AxisType.Auto,))
    audio = 0.1 * np.random.default_rng(0).standard_normal((4, 160)).astype(np.float32)
    for kernel in ("native", "xla"):
        model = Carfac(8000, min_pole_hz=600, hop_s=0.01, kernel=kernel)

        def total(params, audio):
            return jnp.sum(model.apply(params, audio)[0] ** 2)

        split = jax.shard_map(
            jax.grad(total), mesh=mesh, in_specs=(jax.P(), jax.P("clips")), out_specs=jax.P()
        )
        params = model.init()
        expected = jax.jit(jax.grad(total))(params, audio)
        given = jax.jit(split)(params, audio)
        for a, b in zip(jax.tree.leaves(given), jax.tree.leaves(expected), strict=True):
            assert np.max(np.abs(a - b)) <= 1e-3 * np.max(np.abs(b)), kernel
    print("equal")
"""


@NATIVE
def test_shards_over_devices():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    command = [sys.executable, "-c", textwrap.dedent(SHARDED)]
    options = {"capture_output": True, "text": True, "timeout": 240}
    result = subprocess.run(command, check=False, env=environment, **options)
    assert result.stdout.strip() == "equal", result.stderr


@NATIVE
def test_forward_mode_and_second_derivatives_ask_for_xla(audio):
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda a: mean(MODEL.init(), a), (audio,), (audio,))
    assert "forward mode" in kernels.choose.__doc__


@NATIVE
@pytest.mark.parametrize(
    ("field", "shape", "dtype", "complaint"),
    [
        ("audio", (2, 5), "float32", "audio must be"),
        ("audio", (2, 5, 1), "float16", "float32 or float64"),
        ("audio", (2, 5, 1), "float64", "must have the type of the audio"),
        ("audio", (3, 5, 1), "float32", "shape"),
        ("rows", (19, 1, 7), "float32", "wrong rows of coefficients"),
        ("rows", (20, 1, 1), "float32", "two channels"),
        ("agc_rows", (21, 1), "float32", "shape"),
        ("state", (2, 19, 1, 7), "float32", "wrong rows of state"),
        ("state", (2, 20, 7), "float32", "the state must be"),
        ("window", (1,), "float32", "window"),
        ("phase", (2,), "int32", "phase"),
        ("phase", (), "float32", "phase"),
    ],
)
def test_wrong_arrays_are_errors(x64, field, shape, dtype, complaint):
    """Straight into the handlers, past all that Python would have noticed."""
    shapes = {
        "audio": ((2, 5, 1), "float32"),
        "rows": ((20, 1, 7), "float32"),
        "agc_rows": ((22, 1), "float32"),
        "state": ((2, 20, 1, 7), "float32"),
        "window": ((1, 1), "float32"),
        "phase": ((), "int32"),
    }
    call = kernel._Call(Carfac(8000).structure, ("nap",), 0, native.Tuning())
    good = {name: jnp.zeros(*pair) for name, pair in shapes.items()}
    bad = good | {field: jnp.zeros(shape, dtype)}
    results = [jnp.zeros(s, "float32") for s in ((2, 5, 1, 7), *(0,) * 6, (2, 20, 1, 7), (0,))]
    results = [jax.ShapeDtypeStruct(r.shape, r.dtype) for r in results]
    forward = jax.ffi.ffi_call(loader.FORWARD, results)
    attributes = call.attributes(5)
    forward(*good.values(), **attributes)
    with pytest.raises(jax.errors.JaxRuntimeError, match=complaint):
        jax.block_until_ready(forward(*bad.values(), **attributes))


@NATIVE
@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("style", 9),
        ("style", 3),
        ("classes", 2),
        ("interval", 0),
        ("decimations", [8, 2, 2]),
        ("decimations", [8, 0, 2, 2]),
        ("decimations", [1 << 20] * 4),
        ("taps", [4, 5, 5, 5]),
        ("iterations", [1, 1, 1, 1000]),
    ],
)
def test_wrong_options_are_errors(attribute, value):
    call = kernel._Call(Carfac(8000).structure, ("nap",), 0, native.Tuning())
    shapes = ((2, 5, 1), (20, 1, 7), (22, 1), (2, 20, 1, 7), (1, 1))
    arguments = [jnp.zeros(shape) for shape in shapes] + [jnp.zeros((), jnp.int32)]
    results = ((2, 5, 1, 7), *((0,),) * 6, (2, 20, 1, 7), (0,))
    results = [jax.ShapeDtypeStruct(shape, "float32") for shape in results]
    attributes = call.attributes(5) | {attribute: np.asarray(value, np.int64)[()]}
    with pytest.raises(jax.errors.JaxRuntimeError, match="CAR-FAC: "):
        jax.block_until_ready(jax.ffi.ffi_call(loader.FORWARD, results)(*arguments, **attributes))


def test_without_the_library_auto_says_so_once(monkeypatch, caplog, forget, audio):
    monkeypatch.setattr(loader, "_find", lambda: None)
    with caplog.at_level(logging.WARNING):
        assert [kernels.choose("auto") for _ in range(3)] == ["xla"] * 3
    assert len(caplog.records) == 1
    assert "was not compiled" in caplog.text
    assert "build_ext --inplace" in caplog.text
    with pytest.raises(RuntimeError, match="was not compiled"):
        MODEL.run(MODEL.init(), audio)


def test_a_library_that_does_not_load_says_why(monkeypatch, caplog, forget, tmp_path):
    broken = tmp_path / "_kernels.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(loader, "_find", lambda: broken)
    with caplog.at_level(logging.WARNING):
        assert kernels.choose("auto") == "xla"
    assert str(broken) in caplog.text
    assert "does not fit" in caplog.text


@NATIVE
def test_a_library_of_other_sources_is_not_called(monkeypatch, forget):
    monkeypatch.setattr(loader, "_INTERFACE", -1)
    assert "compiled from other sources" in loader.reason_unavailable()
    assert kernels.choose("auto") == "xla"


def test_another_device_takes_xla(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert kernels.choose("auto") == "xla"
    with pytest.raises(RuntimeError, match="kernel='xla'"):
        kernels.choose("native")
