"""A variational autoencoder of cochleagrams of spoken syllables, which come with the package.

python -m experiments.train --config=experiments/configs/vae.py --workdir=runs/vae

`python -m experiments.vae_table --config=experiments/configs/vae.py --workdir=runs/vae` then holds
it against principal components of the same size, and makes pictures and sounds.
"""

from ml_collections import ConfigDict

from hybrid.config import default_config

# A branch that never starts stays frozen, and costs no gradient.
NEVER = 2**31 - 1


def get_config() -> ConfigDict:
    """Frozen CAR-FAC at 8 kHz, frames of 10 ms; 16 latents for a syllable of up to 0.43 s."""
    config = default_config()
    config.num_steps = 2000
    config.batch_size = 64
    config.log_every_steps = 50
    config.eval_every_steps = 200
    config.checkpoint_every_steps = 500

    config.data.target = "data.tones:SpokenTones"
    config.data.kwargs = {
        "sample_rate_hz": 8000,
        "seconds": 0.43,
        "augment": {"shift": {"seconds": 0.01}, "gain": {"low_db": -3.0, "high_db": 3.0}},
    }
    config.data.num_workers = 0  # decoded once, then in the memory of this process

    config.physics.target = "physics.carfac:Carfac"
    config.physics.kwargs = {"hop_s": 0.01, "window_s": 0.02, "compression": "root"}
    config.learner.target = "learners.vae:ConvVae"
    config.learner.kwargs = {"latent_size": 16}
    config.task.target = "hybrid.tasks_vae:Vae"

    # A learned ear would move the target of its own reconstruction.
    config.physics_optimizer.start_step = NEVER
    config.learner_optimizer.name = "adamw"
    config.learner_optimizer.learning_rate = 2e-3
    config.learner_optimizer.warmup_steps = 50
    config.learner_optimizer.weight_decay = 1e-2
    return config
