"""Mandarin tones from real syllables, on recordings that come with the package.

python -m experiments.train --config=experiments/configs/tones.py --workdir=runs/tones
"""

from ml_collections import ConfigDict

from hybrid.config import default_config


def get_config() -> ConfigDict:
    """CAR-FAC at 8 kHz (a tone is the course of the pitch), a small conv net, four classes."""
    config = default_config()
    config.num_steps = 200
    config.batch_size = 32
    config.log_every_steps = 10
    config.eval_every_steps = 50
    config.checkpoint_every_steps = 100

    config.data.target = "data.tones:SpokenTones"
    config.data.kwargs = {"sample_rate_hz": 8000, "augment": {"shift": {"seconds": 0.03}}}

    config.physics.target = "physics.carfac:Carfac"
    config.physics.kwargs = {"hop_s": 0.01, "window_s": 0.02, "compression": "root"}
    config.learner.target = "learners:ConvNet"

    # The ear waits until the network has something to tell it.
    config.physics_optimizer.start_step = 60
    config.physics_optimizer.learning_rate = 0.01
    config.learner_optimizer.name = "adamw"
    config.learner_optimizer.learning_rate = 3e-3
    config.learner_optimizer.weight_decay = 1e-2
    return config
