"""Exists to hold a physics module to its contract: what it is, frames, padding, pieces, configs."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from physics import bounds
from physics.base import PhysicsModule
from physics.testing.sounds import (
    leaves,
    noise,
    piece_samples,
    require,
    require_close,
    weights,
)


def check_protocol(module: Any) -> None:
    """It has every member of `PhysicsModule`, is hashable, and holds no arrays."""
    require(isinstance(module, PhysicsModule), "A physics module has all members of PhysicsModule.")
    require(module == dataclasses.replace(module), "Two modules of the same fields are equal.")
    require(hash(module) == hash(dataclasses.replace(module)), "Equal modules hash alike.")
    held = jax.tree.leaves({f.name: getattr(module, f.name) for f in dataclasses.fields(module)})
    require(
        not any(isinstance(leaf, jax.Array | np.ndarray) for leaf in held),
        "A module is a recipe and holds no arrays; parameters live in `params`.",
    )


def check_config(module: Any) -> None:
    """Its fields go through JSON and back, so that a config file can hold them."""
    fields = {f.name: getattr(module, f.name) for f in dataclasses.fields(module) if f.init}
    fields = {name: _plain(value) for name, value in fields.items()}
    try:
        text = json.dumps(fields)
    except TypeError as error:
        raise AssertionError(
            f"Fields must be plain, so that a config can hold them: {error}."
        ) from error
    again = type(module)(**_tuples(json.loads(text)))
    require(again == module, f"The same fields make the same module; {text} made {again}.")


def check_specs(module: Any) -> None:
    """`specs` describes every parameter, and `physical` lies within its interval."""
    params = module.init(jax.random.key(0))
    specs = module.specs()
    described = jax.tree.structure(specs, is_leaf=bounds.is_parameter)
    require(
        described == jax.tree.structure(params),
        f"specs() is a tree like the params; got {described} and {jax.tree.structure(params)}.",
    )

    def described_well(path, parameter, raw, value):
        name = jax.tree_util.keystr(path)
        require(parameter.unit and parameter.doc, f"{name} must have a unit and a doc.")
        require(parameter.source, f"{name} must say the source of its interval or value.")
        require(raw.shape == value.shape, f"{name} has one shape in both coordinates.")
        inside = (value >= parameter.low) & (value <= parameter.high)
        require(
            jnp.all(inside),
            f"{name} must lie in [{parameter.low}, {parameter.high}]; got {value}.",
        )

    jax.tree_util.tree_map_with_path(
        described_well, specs, params, module.physical(params), is_leaf=bounds.is_parameter
    )


def check_frames(module: Any) -> None:
    """`apply` gives as many frames as `num_frames` says, whatever the length; dtypes are kept."""
    params = module.init(jax.random.key(0))
    hop = module.hop_samples
    for num_samples in sorted({max(1, hop - 1), hop, hop + 1, 3 * hop, piece_samples(module) + 1}):
        audio = noise(module, num_samples, batch=3)
        features = jax.eval_shape(lambda a: module.apply(params, a)[0], audio)
        wanted = module.num_frames(num_samples)
        require(
            features.ndim >= 3 and features.shape[:2] == (3, wanted),
            f"Features of [3, {num_samples}] samples are [3, num_frames = {wanted}, ...]; got "
            f"{features.shape}.",
        )
        require(
            features.dtype == audio.dtype, f"float32 audio gives float32; got {features.dtype}."
        )


def check_padding(module: Any) -> None:
    """Samples beyond `lengths` change neither features nor gradients; frames beyond are zero."""
    params = module.init(jax.random.key(0))
    num_samples, hop = piece_samples(module), module.hop_samples
    short = num_samples // 2 + hop // 3
    lengths = jnp.array([num_samples, short], jnp.int32)
    quiet = noise(module, num_samples)
    loud = quiet.at[1, short:].set(0.9)

    @jax.jit
    def run(params, audio):
        def loss(params, audio):
            features, _ = module.apply(params, audio, lengths=lengths)
            return jnp.sum(weights(features.shape) * features), features

        (_, features), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, audio)
        return features, gradients

    (features, (of_params, of_audio)), (other, (of_params2, of_audio2)) = (
        run(params, quiet),
        run(params, loud),
    )
    require_close(other, features, "What lies beyond a clip's length must not change features", 0)
    require_close(of_audio2, of_audio, "... nor the gradient of the audio", 0)
    for (name, a), (_, b) in zip(leaves(of_params), leaves(of_params2), strict=True):
        require_close(b, a, f"... nor the gradient of {name}", 0)
    require(not np.any(of_audio[1, short:]), "Padding has no gradient.")
    beyond = module.num_frames(short)
    require(not np.any(features[1, beyond:]), "Frames that end beyond a clip's length are zero.")
    alone, _ = module.apply(params, quiet[1:, :short])
    require_close(features[1:, :beyond], alone, "A padded clip gives the frames of the clip alone")


def check_streaming(module: Any) -> None:
    """Pieces, with the state handed on, give what the whole does; or the module says why not."""
    if not module.causal:
        require(
            getattr(module, "not_causal_because", ""),
            "A module that cannot be streamed says why, in `not_causal_because`.",
        )
        return
    params = module.init(jax.random.key(0))
    num_samples, hop = piece_samples(module), module.hop_samples
    audio = noise(module, num_samples)
    whole, end = module.apply(params, audio)
    state, pieces, at = None, [], 0
    for frames in (1, 2, num_samples // hop - 3):
        piece, state = module.apply(params, audio[:, at : at + frames * hop], state)
        pieces.append(piece)
        at += frames * hop
    require_close(np.concatenate(pieces, axis=1), whole, "Pieces give what the whole gives")
    require(
        jax.tree.structure(state) == jax.tree.structure(end),
        "A state is the same tree after any piece.",
    )
    fresh = module.init_state(audio.shape[0])
    begun, _ = module.apply(params, audio, fresh)
    require_close(begun, whole, "init_state(batch) is where apply begins without a state")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value


def _tuples(value: Any) -> Any:
    """Lists, which JSON makes of tuples, as tuples again, but for dicts' own."""
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
