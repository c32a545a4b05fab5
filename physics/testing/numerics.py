"""Exists to hold a physics module to its numbers: purity, gradients, hostile sounds, bounds."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend import core as jax_core

from physics import bounds
from physics.testing.sounds import (
    example,
    hostile,
    leaves,
    noise,
    of_clips,
    piece_samples,
    require,
    require_close,
    weights,
)

# Relative steps of central differences, the best of which counts.
_STEPS = (1e-4, 1e-5, 1e-6)


def check_batch(module: Any) -> None:
    """A clip gives the same in a batch as alone."""
    params = module.init(jax.random.key(0))
    inputs = example(module, batch=3)
    together, _ = module.apply(params, inputs)
    for i in range(3):
        alone, _ = module.apply(params, of_clips(inputs, slice(i, i + 1)))
        require_close(together[i : i + 1], alone, "A clip gives the same in a batch as alone")


def check_purity(module: Any) -> None:
    """Two calls agree to the last bit; jit changes nothing; no tracer leaks, no call to Python."""
    params = module.init(jax.random.key(0))
    inputs = example(module)

    def run(params, inputs):
        return module.apply(params, inputs)[0]

    compiled = jax.jit(run)
    first = compiled(params, inputs)
    require_close(compiled(params, inputs), first, "Two calls agree to the last bit", 0)
    require_close(run(params, inputs), first, "Under jit it gives the same")
    with jax.checking_leaks():
        jaxpr = jax.make_jaxpr(run)(params, inputs)
    called = sorted(_primitives(jaxpr.jaxpr) & {"pure_callback", "io_callback", "debug_callback"})
    require(not called, f"A module is pure: it must not call back to Python; found {called}.")


def check_gradients(module: Any) -> None:
    """In float64, gradients of audio and of every parameter equal central differences to 1e-5."""
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), module.init(jax.random.key(0)))
        audio = noise(module, piece_samples(module), dtype=np.float64)
        shape = jax.eval_shape(lambda: module.apply(params, audio)[0]).shape

        @jax.jit
        def loss(params, audio):
            return jnp.sum(weights(shape, np.float64) * module.apply(params, audio)[0])

        of_params, of_audio = jax.jit(jax.grad(loss, (0, 1)))(params, audio)
        named = leaves(params)
        structure = jax.tree.structure(params)
        for i, (name, gradient) in enumerate(leaves(of_params)):

            def along(step, i=i):
                moved = [leaf + step if j == i else leaf for j, (_, leaf) in enumerate(named)]
                return loss(structure.unflatten(moved), audio)

            compare(gradient, along, name, named[i][1])
        compare(of_audio, lambda step: loss(params, audio + step), "the audio", audio)


def compare(gradient: Any, along: Any, name: str, at: Any) -> None:
    """A random direction of one leaf: what the gradient says, and what happens."""
    direction = np.random.default_rng(1).choice([-1.0, 1.0], np.shape(at))
    expected = float(np.sum(np.asarray(gradient) * direction))
    size = float(np.linalg.norm(gradient)) * np.sqrt(np.size(at))
    scale = max(1e-3, float(np.abs(at).max(initial=0)))
    errors = []
    for relative in _STEPS:
        step = relative * scale
        seen = (float(along(step * direction)) - float(along(-step * direction))) / (2 * step)
        errors.append(abs(seen - expected))
    require(
        min(errors) <= 1e-5 * size + 1e-9,
        f"The gradient of {name} must equal central differences to 1e-5 of its norm; got "
        f"{expected:g}, off by {min(errors):.2g}, norm {size:.3g}.",
    )


def check_hostile_sounds(module: Any) -> None:
    """Silence, a click, DC, full scale and subnormal numbers give finite features and gradients."""
    params = module.init(jax.random.key(0))

    @jax.jit
    def run(params, audio):
        def loss(params, audio):
            features = module.apply(params, audio)[0]
            return jnp.sum(weights(features.shape) * features), features

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, audio)

    for sound, audio in hostile(module).items():
        (_, features), (of_params, of_audio) = run(params, audio)
        for what, value in (("features", features), ("gradient of the audio", of_audio)):
            require(jnp.all(jnp.isfinite(value)), f"The {what} of {sound} must be finite.")
        for name, value in leaves(of_params):
            require(
                jnp.all(jnp.isfinite(value)), f"The gradient of {name} for {sound} must be finite."
            )


def check_bounds(module: Any) -> None:
    """After 100 large random steps every parameter is within its interval, and features finite."""
    params, key = module.init(jax.random.key(0)), jax.random.key(1)
    optimizer = optax.sgd(1.0)

    @jax.jit
    def step(params, opt_state, key):
        flat, structure = jax.tree.flatten(params)
        keys = jax.random.split(key, max(1, len(flat)))
        gradients = structure.unflatten(
            [3 * jax.random.normal(k, p.shape, p.dtype) for k, p in zip(keys, flat, strict=False)]
        )
        updates, opt_state = optimizer.update(gradients, opt_state)
        return module.project(optax.apply_updates(params, updates)), opt_state

    opt_state = optimizer.init(params)
    for i in range(100):
        params, opt_state = step(params, opt_state, jax.random.fold_in(key, i))

    def within(path, parameter, value):
        inside = (value >= parameter.low) & (value <= parameter.high)
        if parameter.transform != "project":
            inside = (value > parameter.low) & (value < parameter.high)
        require(
            jnp.all(inside),
            f"{jax.tree_util.keystr(path)} must stay between {parameter.low} and "
            f"{parameter.high}; got {value}.",
        )

    jax.tree_util.tree_map_with_path(
        within, module.specs(), module.physical(params), is_leaf=bounds.is_parameter
    )
    features, _ = jax.jit(module.apply)(params, example(module))
    require(jnp.all(jnp.isfinite(features)), "Features must be finite anywhere within the bounds.")


def _primitives(jaxpr: Any) -> set[str]:
    """Names of all primitives, in inner jaxprs too."""
    found = set()
    for equation in jaxpr.eqns:
        found.add(equation.primitive.name)
        for inner in jax_core.jaxprs_in_params(equation.params):
            found |= _primitives(inner)
    return found
