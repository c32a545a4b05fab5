"""Ten spoken words of Speech Commands.

    python -m experiments.train --config=experiments/configs/keywords.py \
        --workdir=runs/keywords --config.data.root=FOLDER_OF_SpeechCommands

Add `--data_kwargs='{"download": true}'` to fetch the data set (2.3 GB) into that folder first.
"""

from ml_collections import ConfigDict

from hybrid.config import default_config

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")


def get_config() -> ConfigDict:
    """CAR-FAC at 16 kHz, a conv net, ten classes; the ear joins after 300 steps."""
    config = default_config()
    config.num_steps = 1000
    config.batch_size = 32
    config.log_every_steps = 20
    config.eval_every_steps = 200
    config.checkpoint_every_steps = 200

    config.data.target = "data.speech_commands:SpeechCommands"
    config.data.root = "datasets"
    config.data.kwargs = {
        "sample_rate_hz": 16000,
        "words": WORDS,
        "augment": {
            "shift": {"seconds": 0.1},
            "background": {"low_snr_db": 5.0, "high_snr_db": 20.0, "probability": 0.5},
        },
    }

    config.physics.target = "physics.carfac:Carfac"
    config.physics.kwargs = {"hop_s": 0.01, "window_s": 0.02, "compression": "root"}
    config.learner.target = "learners:ConvNet"
    config.learner.kwargs = {
        "features": (24, 48, 64, 64),
        "dropout": 0.1,
        "frame_mask_fraction": 0.08,
        "channel_mask_fraction": 0.08,
    }

    # The ear waits until the network has something to tell it.
    config.physics_optimizer.start_step = 300
    config.physics_optimizer.learning_rate = 0.01
    config.learner_optimizer.name = "adamw"
    config.learner_optimizer.learning_rate = 2e-3
    config.learner_optimizer.warmup_steps = 40
    config.learner_optimizer.weight_decay = 5e-2
    return config
