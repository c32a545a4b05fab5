"""Exists to put a physics module inside a network, where one optimizer may own both."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from physics import bounds
from physics.audio import check_floating

Tree = Any


class PhysicsLayer(nn.Module):
    """A physics module as a Linen layer: from audio to features, its params among the network's.

    The params lie at the layer's own place in `collection`, with the names that they have in
    `physics`: for a layer named `ear`, `variables["params"]["ear"]["car"]["ohc_health"]`. They are
    in the optimizer's coordinates; `physics.physical(variables["params"]["ear"])` gives Hz and s.

    In "params" one optimizer, or `optax.multi_transform`, owns them with the rest. In a collection
    of its own, such as "physics", they are left alone by whatever takes `variables["params"]`, and
    may be frozen, saved or trained apart. Either way an optimizer knows nothing of bounds: end its
    chain with `keep_bounds`.

    Example:
        class Network(nn.Module):
            @nn.compact
            def __call__(self, audio, lengths, *, train):
                features = PhysicsLayer(ear, name="ear")(audio, lengths)
                mask = frame_mask(features.shape[1], ear.hop_samples, lengths)
                return ConvNet(10, name="net")(features, train=train, mask=mask)

        optimizers = {
            "ear": optax.chain(optax.adam(1e-2), keep_bounds(ear, "ear")),
            "net": optax.adam(1e-3),
        }
        optimizer = optax.multi_transform(optimizers, {"ear": "ear", "net": "net"})

    Attributes:
        physics: a `physics.PhysicsModule`, whose params are a dict.
        collection: where the params live, "params" or a name of one's own.
    """

    physics: Any
    collection: str = "params"

    @nn.compact
    def __call__(
        self,
        audio: Float[Array, "batch time *ears"],
        lengths: Int[Array, " batch"] | None = None,
    ) -> Float[Array, "batch frames *channels"]:
        """Returns features `[batch, frames, channels]`, with several ears `[..., ears, channels]`.

        Args:
            audio: `[batch, time]` or `[batch, time, ears]`, full scale 1.0.
            lengths: valid samples of each clip; what lies beyond changes nothing.
        """
        drawn: dict[str, Tree] = {}

        def leaf(name: str) -> Tree:
            # One draw for all, so that the params are those of `physics.init` for one key.
            if not drawn:
                drawn.update(self.physics.init(self.make_rng("params")))
            return drawn[name]

        params = {
            name: self.variable(self.collection, name, leaf, name).value
            for name in self.physics.specs()
        }
        check_floating(audio)
        audio = audio.astype(jnp.result_type(float))
        return self.physics.apply(params, audio, lengths=lengths)[0]


def keep_bounds(physics: Any, at: str = "") -> optax.GradientTransformation:
    """Shortens the updates of a physics module's params so that they end inside their bounds.

    To be the last of a chain, after all that scales the updates: what it lets through is what the
    training loop's projection after each update gives.

    Args:
        physics: the module.
        at: dotted place of its params in the tree that the optimizer is given, such as "ear"; empty
            where they are the whole tree. It holds inside `optax.multi_transform` too, which keeps
            the shape of the tree.

    Raises:
        ValueError: at the first update, if there are no params at that place.
    """
    names = [name for name in at.split(".") if name]

    def update(updates: Tree, state: Any, params: Tree = None) -> tuple[Tree, Any]:
        if params is None:
            raise ValueError("keep_bounds needs the params: call update(grads, state, params).")
        mine = _subtree(params, names)
        moved = optax.apply_updates(mine, _subtree(updates, names))
        inside = _project(physics, moved)
        return _replaced(updates, names, jax.tree.map(jnp.subtract, inside, mine)), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def _project(physics: Any, params: Tree) -> Tree:
    if hasattr(physics, "project"):
        return physics.project(params)
    return bounds.map_specs(bounds.project, physics.specs(), params)


def _subtree(tree: Tree, names: list[str]) -> Tree:
    for name in names:
        if name not in tree:
            raise ValueError(
                f"keep_bounds must be told where the physics params are; there is no {name!r} of "
                f"at={'.'.join(names)!r} among {', '.join(tree)}: give the name of the layer."
            )
        tree = tree[name]
    return tree


def _replaced(tree: Tree, names: list[str], new: Tree) -> Tree:
    """A copy of nested dicts, with `new` in one place."""
    if not names:
        return new
    return {**tree, names[0]: _replaced(tree[names[0]], names[1:], new)}
