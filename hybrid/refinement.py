"""Analysis by synthesis: controls of a synthesiser, led on by the gradient of a loss of its sound.

A network says in one pass what a sound is made of; descent from there finds what it missed.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

Tree = Any


def refine(
    loss: Callable[[Tree, Key[Array, ""]], Any],
    controls: Tree,
    key: Key[Array, ""],
    steps: float | int,
    learning_rate: float | int = 0.1,
    has_aux: bool = False,
) -> tuple[Tree, Float[Array, "steps ..."]]:
    """Descends from controls to such as lose less; Adam, with a cosine schedule.

    Each step has noise of its own, so that controls do not come to fit one draw of it. To be called
    within `jax.jit`, or each call compiles anew.

    Args:
        loss: of controls and a random key for the noise, a scalar. What is not to move, pitch say,
            it takes from elsewhere.
        controls: where it starts, floating point.
        key: of the noise of all steps.
        steps: of the descent; 0 changes nothing.
        learning_rate: first step, in units of the controls.
        has_aux: whether the loss gives a pair, of the scalar and what is returned in its place.

    Returns:
        Controls, and the loss before each step.

    Raises:
        ValueError: steps below 0 or no whole number, or a learning rate that is not above 0.
    """
    if steps < 0 or steps != int(steps) or not learning_rate > 0:
        raise ValueError(
            "steps must be a whole number, 0 or more, and learning_rate above 0, got "
            f"{steps:g} and {learning_rate:g}: take 50 and 0.1"
        )
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, max(1, int(steps))))

    def step(carry: tuple[Tree, Any], number: Array) -> tuple[tuple[Tree, Any], Array]:
        controls, state = carry
        own = jax.random.fold_in(key, number)
        value, gradient = jax.value_and_grad(loss, has_aux=has_aux)(controls, own)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(controls, updates), state), value[1] if has_aux else value

    start = (controls, optimizer.init(controls))
    (controls, _), losses = jax.lax.scan(step, start, jnp.arange(int(steps)))
    return controls, losses
