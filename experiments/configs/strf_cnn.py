"""Mandarin tones by ear and cortex: auditory spectrogram, 40 receptive fields, a small CNN.

python -m experiments.train --config=experiments/configs/strf_cnn.py --workdir=runs/strf_cnn

The model of Famularo et al., arXiv 2409.08997, on recordings that come with the package.
"""

from ml_collections import ConfigDict

from hybrid.config import default_config


def get_config() -> ConfigDict:
    """129 fixed filters with exponents, 40 STRFs, CNN 10-20-40; Adam with 1e-3 for each tree."""
    config = default_config()
    config.num_steps = 600
    config.batch_size = 16
    config.log_every_steps = 20
    config.eval_every_steps = 100
    config.checkpoint_every_steps = 100

    config.data.target = "data.tones:SpokenTones"
    config.data.kwargs = {"sample_rate_hz": 16000, "augment": {"shift": {"seconds": 0.03}}}

    config.physics.target = "physics.compose:Compose"
    config.physics.kwargs = {
        "front": {"target": "physics.cortex:AuditorySpectrogram", "n_channels": 128},
        "stages": ({"target": "physics.cortex:Strf"},),
    }
    config.learner.target = "learners:StrfCnn"
    config.learner.kwargs = {"n_strfs": 40, "features": (10, 20, 40)}
    config.task.target = "hybrid.tasks_frames:FrameClassification"

    # As published: the same Adam for both, without decay or schedule.
    for optimizer in (config.physics_optimizer, config.learner_optimizer):
        optimizer.name = "adam"
        optimizer.learning_rate = 1e-3
        optimizer.schedule = "constant"
    return config
