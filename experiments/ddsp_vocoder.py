"""A channel vocoder beside a run: of its frames, given its pitch, tuned on its loss."""

from typing import Any

VOCODER_BANDS = 40
# Of several, the window with which it comes closest to notes.
VOCODER_WINDOW_S = 0.012
_TUNING_RATE = 0.03
# Units of the descent: at a rate of 0.1 a level moves by up to 2 dB a step, voicing by 0.4 logits.
_FITTED_DB, _FITTED_LOGIT = 20.0, 4.0


def make_vocoder(loaded: Any) -> Any:
    """A channel vocoder with the frames of the run's synthesiser."""
    from physics.synth import ChannelVocoder

    return ChannelVocoder(
        sample_rate_hz=loaded.physics.sample_rate_hz,
        hop_samples=loaded.physics.hop_samples,
        n_bands=VOCODER_BANDS,
        window_s=VOCODER_WINDOW_S,
    )


def vocode(loaded: Any, vocoder: Any, params: Any, batch: Any, key: Any) -> Any:
    """What the vocoder makes of clips, by the pitch that the network is given; [batch, time]."""
    controls = controls_of(loaded, vocoder, params, batch)
    return sound_of(vocoder, params, {**controls, "key": key}, batch)


def controls_of(loaded: Any, vocoder: Any, params: Any, batch: Any) -> dict[str, Any]:
    """What the vocoder is told of clips, but for a key."""
    heard = loaded.task.hear(loaded.state.physics.params, batch)
    return {
        "f0_hz": heard["f0_hz"],
        "bands_db": vocoder.analyse(params, batch["audio"], batch["lengths"]),
        "voicing": heard["confidence"],
    }


def sound_of(vocoder: Any, params: Any, controls: Any, batch: Any) -> Any:
    """Its sound, as long as the clips."""
    import jax.numpy as jnp

    audio, _ = vocoder.apply(params, controls, lengths=batch["lengths"])
    return jnp.pad(audio, ((0, 0), (0, batch["audio"].shape[1] - audio.shape[1])))


def tune_vocoder(loaded: Any, vocoder: Any, params: Any, steps: int) -> tuple[Any, list[float]]:
    """Adam on the vocoder's parameters, on the run's loss and training notes.

    Returns:
        The parameters, and the loss before each step.
    """
    import jax
    import optax

    from data.bridge import to_jax
    from hybrid.parts import training_loader

    optimizer = optax.adam(optax.cosine_decay_schedule(_TUNING_RATE, steps))

    @jax.jit
    def step(params: Any, state: Any, batch: Any, key: Any) -> Any:
        def loss(params: Any) -> Any:
            audio = vocode(loaded, vocoder, params, batch, key)
            return loaded.task.losses(audio, batch["audio"], batch["lengths"])

        value, gradient = jax.value_and_grad(loss)(params)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(gradient, state)
        return vocoder.project(optax.apply_updates(params, updates)), state, value

    state, course, batches = optimizer.init(params), [], training_loader(loaded)
    for number in range(steps):
        batch, _ = to_jax(next(batches))
        params, state, value = step(params, state, batch, jax.random.key(number))
        course.append(float(value))
    return params, course


def fit_vocoder(
    loaded: Any, vocoder: Any, params: Any, batch: Any, key: Any, steps: int, learning_rate: float
) -> Any:
    """As `vocode`, with levels of bands and voicing fitted to each clip by `hybrid.refinement`.

    Voicing starts between 0.01 and 0.99, where its logit is finite.

    Args:
        loaded: a `hybrid.Run`.
        vocoder: the module.
        params: its parameters.
        batch: clips; those of weight 0 do not count.
        key: of the noise.
        steps: of the descent.
        learning_rate: of 20 dB, and of 4 logits of voicing.
    """
    import jax
    import jax.numpy as jnp

    from hybrid.refinement import refine

    usual = controls_of(loaded, vocoder, params, batch)
    sure = jnp.clip(usual["voicing"], 0.01, 0.99)
    counted = jnp.where(batch["weights"] > 0, batch["lengths"], 0)

    def sound(moves: Any, key: Any) -> Any:
        levels = {
            "bands_db": usual["bands_db"] + _FITTED_DB * moves["bands_db"],
            "voicing": jax.nn.sigmoid(
                jax.scipy.special.logit(sure) + _FITTED_LOGIT * moves["voicing"]
            ),
        }
        return sound_of(vocoder, params, {**usual, **levels, "key": key}, batch)

    def loss(moves: Any, key: Any) -> Any:
        return loaded.task.losses(sound(moves, key), batch["audio"], counted)

    start = {name: jnp.zeros_like(usual[name]) for name in ("bands_db", "voicing")}
    moves, _ = refine(loss, start, jax.random.fold_in(key, 1), steps, learning_rate)
    return sound(moves, key)
