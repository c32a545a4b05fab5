"""Exists to time the training step of Famularo et al. by their own code, in its own process.

    python -m experiments.benchmark_famularo CHECKOUT CLIPS SECONDS

The last line of the output is the time of one step per second of audio: wall clock and processor.
Nothing of their code is copied: their network is built with the settings of their paper, and its
loss differentiated, compiled whole, as ours.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import time
import types

import numpy as np

STEPS = 2


def main(checkout: str, clips: int, seconds: float) -> None:
    """Times a few steps after one that does not count."""
    os.chdir(checkout)  # they read their filters from there
    sys.path.insert(0, checkout)
    for name in ("librosa", "tqdm"):
        # Imported by them for what is not run here.
        if importlib.util.find_spec(name) is None:
            stub = types.ModuleType(name)
            vars(stub)["tqdm"] = None
            sys.modules[name] = stub
    network = importlib.import_module("supervisedSTRF")
    functions = importlib.import_module("strfpy_jax")
    import jax
    import jax.numpy as jnp
    import optax

    jax.config.update("jax_enable_x64", True)
    model = network.vSupervisedSTRF(
        n_phones=4,
        input_type="audio",
        compression_method="power",
        update_lin=False,
        use_class=True,
        encoder_type="strf",
        decoder_type="cnn",
        conv_feats=(10, 20, 40),
        pooling_stride=3,
    )
    # The ear's exponents and its pole are among the network's own parameters there.
    params = {"sr": jnp.asarray(functions.initialize_sr(40, 0, method="log"))}
    audio = jnp.asarray(np.random.default_rng(0).standard_normal((clips, int(16000 * seconds))))
    variables = model.init(jax.random.key(0), audio, params)
    logits = jax.eval_shape(model.apply, variables, audio, params)
    labels = jnp.zeros(logits.shape[:-1], jnp.int32)
    optimizers = optax.adam(1e-3), optax.adam(1e-3)
    states = optimizers[0].init(variables), optimizers[1].init(params)

    @jax.jit
    def step(variables, params, states):
        def loss(variables, params):
            logits = model.apply(variables, audio, params)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        gradients = jax.grad(loss, (0, 1))(variables, params)
        first, state_of_first = optimizers[0].update(gradients[0], states[0])
        second, state_of_second = optimizers[1].update(gradients[1], states[1])
        variables = optax.apply_updates(variables, first)
        params = optax.apply_updates(params, second)
        return variables, params, (state_of_first, state_of_second)

    now = jax.block_until_ready(step(variables, params, states))
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(STEPS):
        now = jax.block_until_ready(step(*now))
    audio_s = STEPS * clips * seconds
    print((time.perf_counter() - wall) / audio_s, (time.process_time() - processor) / audio_s)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
