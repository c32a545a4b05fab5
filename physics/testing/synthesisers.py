"""Exists to hold a synthesiser to the contract: lengths, padding, pieces, gradients of controls."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from physics.testing.numerics import compare
from physics.testing.sounds import (
    controls,
    leaves,
    of_clips,
    require,
    require_close,
    split_key,
    weights,
)

_FRAMES = 6


def check_sound(module: Any) -> None:
    """Controls give `num_samples(frames)` samples, dtypes are kept; what is missing is told."""
    params = module.init(jax.random.key(0))
    for n_frames in (1, 2, _FRAMES):
        given = controls(module, n_frames, batch=3)
        audio = jax.eval_shape(lambda c: module.apply(params, c)[0], given)
        wanted = (3, module.num_samples(n_frames))
        require(wanted[1] == n_frames * module.hop_samples, "Every frame has hop_samples samples.")
        require(
            module.num_frames(wanted[1]) == n_frames,
            f"num_frames({wanted[1]}) is {n_frames}, as num_samples has it.",
        )
        require(
            audio.shape == wanted,
            f"Sound of {n_frames} frames is [3, num_samples = {wanted[1]}]; got {audio.shape}.",
        )
        require(audio.dtype == jnp.float32, f"float32 gives float32; got {audio.dtype}.")
    name = next(iter(module.control_sizes))
    try:
        module.apply(params, {k: v for k, v in controls(module, 2).items() if k != name})
    except ValueError as error:
        require(name in str(error), f"What says that {name} is missing names it; got: {error}")
    else:
        raise AssertionError(f"Controls without {name} are refused with a ValueError.")


def check_controls_padding(module: Any) -> None:
    """Controls beyond `lengths` change neither sound nor gradients; the sound there is 0."""
    params, hop = module.init(jax.random.key(0)), module.hop_samples
    given, key = split_key(controls(module, _FRAMES))
    short = 3 * hop + hop // 3
    lengths = jnp.array([_FRAMES * hop, short], jnp.int32)
    other = jax.tree.map(lambda x: x.at[1, 3:].set(jnp.nan), given)

    @jax.jit
    def run(params, given):
        def loss(params, given):
            audio, _ = module.apply(params, given | key, lengths=lengths)
            return jnp.sum(weights(audio.shape) * audio), audio

        gradients, audio = jax.grad(loss, (0, 1), has_aux=True)(params, given)
        return audio, gradients

    (audio, gradients), (audio2, gradients2) = run(params, given), run(params, other)
    require_close(audio2, audio, "What lies beyond a clip's length must not change the sound", 0)
    for (name, a), (_, b) in zip(leaves(gradients), leaves(gradients2), strict=True):
        require_close(b, a, f"... nor the gradient of {name}", 0)
    for name, gradient in gradients[1].items():
        require(not np.any(gradient[1, 3:]), f"{name} has no gradient beyond a clip's length.")
    require(not np.any(audio[1, 3 * hop :]), "Hops that end beyond a clip's length are silent.")
    alone, _ = module.apply(params, of_clips(given | key, slice(1, 2), slice(0, 3)))
    require_close(audio[1:, : 3 * hop], alone, "A padded clip sounds as it does alone")


def check_controls_streaming(module: Any) -> None:
    """Pieces of any number of frames, with the state handed on, give what the whole does."""
    params = module.init(jax.random.key(0))
    given = controls(module, _FRAMES)
    whole, end = module.apply(params, given)
    state, pieces = None, []
    for at, to in ((0, 1), (1, 2), (2, _FRAMES)):
        piece, state = module.apply(params, of_clips(given, slice(None), slice(at, to)), state)
        pieces.append(piece)
    require_close(np.concatenate(pieces, axis=1), whole, "Pieces give what the whole gives")
    require(
        jax.tree.structure(state) == jax.tree.structure(end),
        "A state is the same tree after any piece.",
    )
    begun, _ = module.apply(params, given, module.init_state(whole.shape[0]))
    require_close(begun, whole, "init_state(batch) is where apply begins without a state")


def check_controls_gradients(module: Any) -> None:
    """In float64, gradients of controls and parameters equal central differences to 1e-5."""
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), module.init(jax.random.key(0)))
        given, key = split_key(controls(module, _FRAMES, dtype=np.float64))
        shape = (2, module.num_samples(_FRAMES))
        both = {"params": params, "controls": given}

        @jax.jit
        def loss(both):
            audio = module.apply(both["params"], both["controls"] | key)[0]
            return jnp.sum(weights(shape, np.float64) * audio)

        named, structure = leaves(both), jax.tree.structure(both)
        for i, (name, gradient) in enumerate(leaves(jax.jit(jax.grad(loss))(both))):

            def along(step, i=i):
                moved = [leaf + step if j == i else leaf for j, (_, leaf) in enumerate(named)]
                return loss(structure.unflatten(moved))

            compare(gradient, along, name, named[i][1])


def check_hostile_controls(module: Any) -> None:
    """Silence, f0 of 0, above half the sample rate, and in leaps: finite sound and gradients."""
    params = module.init(jax.random.key(0))
    usual, key = split_key(controls(module, _FRAMES, batch=1))
    leaps = np.resize([0.0, 0.45, 0.0, 0.002, 0.6], (1, _FRAMES)) * module.sample_rate_hz

    def with_f0(hz):
        filled = {n: jnp.full_like(x, hz) for n, x in usual.items() if n.endswith("_hz")}
        return usual | filled

    cases = {
        "f0 of 0": with_f0(0.0),
        "f0 above half the sample rate": with_f0(0.7 * module.sample_rate_hz),
        "f0 in leaps": {
            n: jnp.asarray(leaps, x.dtype) if n.endswith("_hz") else x for n, x in usual.items()
        },
    }
    for value in (-200.0, 0.0, 60.0):
        cases[f"controls of {value:g}"] = {
            n: x if n.endswith("_hz") else jnp.full_like(x, value) for n, x in usual.items()
        }

    @jax.jit
    def run(params, given):
        def loss(params, given):
            audio = module.apply(params, given | key)[0]
            return jnp.sum(weights(audio.shape) * audio), audio

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, given)

    for case, given in cases.items():
        (_, audio), gradients = run(params, given)
        require(jnp.all(jnp.isfinite(audio)), f"The sound of {case} must be finite.")
        for name, value in leaves(gradients):
            require(
                jnp.all(jnp.isfinite(value)), f"The gradient of {name} for {case} must be finite."
            )
