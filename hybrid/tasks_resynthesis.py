"""Physics behind the network as well as before it: a sound is analysed, then made anew."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from hybrid.losses import WeightedSum, build_losses
from hybrid.refinement import refine
from hybrid.tasks import Aux, Batch, FrontEndTask, Tree, split_params
from physics.base import frame_mask
from physics.pitch import PitchLoudness
from physics.pitch.loudness import WINDOW_S

_SIZES = (2048, 1024, 512, 256, 128, 64)
DDSP_LOSS: Mapping[str, Any] = {
    "spectra": {
        "target": "hybrid.losses:MultiResolutionStft",
        "kwargs": {
            "n_fft": _SIZES,
            "window_samples": _SIZES,
            "hop_samples": tuple(size // 4 for size in _SIZES),
            "convergence_weight": 0.0,
            "linear_weight": 1.0,
            "log_weight": 1.0,
            "eps": 1e-10,
        },
    }
}
"""Mean differences of magnitudes and of their logarithms, 75 % overlap: DDSP, section 4.2.

The mean over the sizes, where DDSP takes the sum; magnitudes count from 1e-5 on, as there.
"""
PITCHES = ("yin", "known")


@dataclasses.dataclass(frozen=True)
class Resynthesis(FrontEndTask):
    """Front end, decoder, synthesiser, and losses between the sound and what was made of it.

    An autoencoder in the manner of DDSP (Engel et al., ICLR 2020): the decoder is given pitch and
    loudness, which are measured without a gradient, and the features of the front end, from which
    it makes out the timbre; it gives the controls of the synthesiser. The front end and the
    synthesiser are trees "front" and "synth" of the physics.

    Attributes:
        physics: a `physics.analysis_synthesis.AnalysisSynthesis`, or what has its members.
        learner: a network called as `learners.decoder.Decoder` is.
        losses: as `hybrid.losses.build_losses` takes them, or a `WeightedSum`.
        pitch: "yin" measures it (which follows a vibrato); "known" takes `f0_hz` of the data.
        min_hz: lowest pitch that is looked for.
        max_hz: highest, an eighth of the sample rate if that is less.
        look_ahead_frames: how much later the features of a frame may be: so many that half of the
            front end's window is behind its end bring them together with pitch and loudness. Sound
            can then be made so much later only.
    """

    losses: Any = dataclasses.field(default_factory=lambda: dict(DDSP_LOSS))
    pitch: str = "yin"
    min_hz: float | int = 60.0
    max_hz: float | int = 1600.0
    look_ahead_frames: float | int = 0

    def __post_init__(self) -> None:
        """Checks the settings, and builds the losses of a spec."""
        if self.pitch not in PITCHES:
            raise ValueError(f"pitch must be one of {PITCHES}, got {self.pitch!r}: take 'yin'")
        if not hasattr(self.physics, "synthesize"):
            raise ValueError(
                f"resynthesis needs a front end and a synthesiser, got {self.physics!r}: take "
                "physics.analysis_synthesis:AnalysisSynthesis, which has both"
            )
        if not isinstance(self.losses, WeightedSum):
            built = build_losses(self.losses, self.physics.sample_rate_hz)
            object.__setattr__(self, "losses", built)
        if self.look_ahead_frames != int(self.look_ahead_frames) or self.look_ahead_frames < 0:
            raise ValueError(
                "look_ahead_frames must be a whole number, 0 or more, got "
                f"{self.look_ahead_frames!r}: take half of the front end's window, in hops"
            )
        try:
            _ = self.pitch_loudness
        except ValueError as error:
            raise ValueError(
                f"pitch must be measurable once a hop, got min_hz={self.min_hz:g}, max_hz="
                f"{self.max_hz:g} and hops of {self.physics.hop_samples} samples: give the physics "
                f"a smaller hop_s, or take a lower min_hz, whose period is half of the window "
                f"({error})"
            ) from error

    @property
    def pitch_loudness(self) -> PitchLoudness:
        """What measures pitch and loudness, where the frames of the synthesiser end."""
        rate_hz = self.physics.sample_rate_hz
        hop_s = self.physics.hop_samples / rate_hz
        return PitchLoudness(
            sample_rate_hz=rate_hz,
            hop_s=hop_s,
            min_hz=self.min_hz,
            max_hz=min(self.max_hz, rate_hz / 8),
            window_s=max(WINDOW_S, 2 * hop_s),
            centred=True,
        )

    def init(self, key: Key[Array, ""], batch: dict[str, Any]) -> tuple[Tree, Tree, Tree]:
        """Returns initial parameters; the network sees the shape of the features."""
        if self.pitch == "known" and "f0_hz" not in batch:
            raise ValueError(
                f"pitch='known' needs `f0_hz` [batch] in the data, got {', '.join(sorted(batch))}: "
                "take data.notes:Notes, or pitch='yin'"
            )
        physics_key, learner_key = jax.random.split(key)
        physics_params = self.physics.init(physics_key)
        heard = jax.eval_shape(self.hear, physics_params, batch)
        heard = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), heard)
        variables = self.learner.init(
            {"params": learner_key},
            heard["f0_hz"],
            heard["loudness_db"],
            heard["timbre"],
            self.sizes(),
            train=False,
            mask=heard["mask"],
            **self._frequencies(heard),
        )
        return physics_params, *split_params(variables, heard["timbre"].dtype)

    def sizes(self) -> dict[str, int]:
        """Numbers a frame of each control that the network gives; pitch is not one of them."""
        sizes = self.physics.synth.control_sizes
        return {name: size for name, size in sizes.items() if name != "f0_hz"}

    def hear(self, physics_params: Tree, batch: Batch) -> dict[str, Any]:
        """What the decoder is given of a batch.

        Returns:
            `f0_hz`, `confidence` and `loudness_db` [batch, frames], without a gradient, `timbre`
            [batch, frames, channels] and `mask` [batch, frames]; `channels_hz` [channels] too, if
            the network has `local_width`.
        """
        frames = int(self.look_ahead_frames)
        ahead = frames * self.physics.hop_samples
        audio = self.audio(batch)
        longer = batch | {
            "audio": jnp.pad(audio, [(0, 0), (0, ahead), *[(0, 0)] * (audio.ndim - 2)]),
            "lengths": batch["lengths"] + ahead,
        }
        timbre, _ = self.features(physics_params, longer)
        timbre = timbre[:, frames:]
        mask = frame_mask(timbre.shape[1], self.physics.hop_samples, batch["lengths"])
        heard, _ = self.pitch_loudness.run({}, audio, lengths=batch["lengths"])
        if self.pitch == "known":
            known_hz = batch["f0_hz"].astype(timbre.dtype)[:, None]
            heard["f0_hz"] = jnp.where(mask, known_hz, jnp.zeros_like(known_hz))
        told: dict[str, Any] = {**jax.lax.stop_gradient(heard), "timbre": timbre, "mask": mask}
        if getattr(self.learner, "local_width", 0):
            ask = getattr(self.physics, "channel_frequencies_hz", lambda _: None)
            told["channels_hz"] = ask(physics_params)
        return told

    def decode(
        self,
        learner_params: Tree,
        learner_collections: Tree,
        heard: Mapping[str, Any],
        train: bool = False,
        counts: Any = None,
    ) -> tuple[dict[str, Array], Tree]:
        """Controls of the synthesiser from what was heard, and the new collections.

        Args:
            learner_params: parameters of `learner`.
            learner_collections: its other collections.
            heard: as from `hear`; pitch and loudness of one sound and timbre of another make the
                second play what the first does. The mask of that other one is then given as
                `timbre_mask`: sounds may be of different lengths.
            train: whether this is a training step.
            counts: which rows count, bool [batch]; all if None.
        """
        mask = heard["mask"]
        mask = mask if counts is None else mask & counts[:, None]
        others = {name: heard[name] for name in ("timbre_mask",) if name in heard}
        controls, collections = self.learner.apply(
            {"params": learner_params, **learner_collections},
            heard["f0_hz"],
            heard["loudness_db"],
            heard["timbre"],
            self.sizes(),
            train=train,
            mask=mask,
            mutable=list(learner_collections) if train else [],
            **others,
            **self._frequencies(heard),
        )
        return {"f0_hz": heard["f0_hz"], **controls}, collections

    def _frequencies(self, heard: Mapping[str, Any]) -> dict[str, Any]:
        """What a network that looks at features by frequency is also given."""
        if "channels_hz" not in heard:
            return {}
        synth = getattr(self.physics, "synth", None)
        ask = getattr(synth, "places_hz", lambda _: None)
        places_hz = ask(heard["f0_hz"]) or None
        return {"channels_hz": heard["channels_hz"], "places_hz": places_hz}

    def sound(
        self,
        physics_params: Tree,
        controls: Mapping[str, Array],
        key: Key[Array, ""],
        num_samples: int,
        lengths: Any = None,
    ) -> Float[Array, "batch time"]:
        """Audio of controls, with silence where no frame reaches.

        Args:
            physics_params: parameters of `physics`.
            controls: as from `decode`.
            key: of the noise.
            num_samples: length of the audio.
            lengths: valid samples of each clip.
        """
        controls = {**controls, "key": key}
        audio, _ = self.physics.synthesize(physics_params, controls, lengths=lengths)
        audio = audio[:, :num_samples]
        return jnp.pad(audio, ((0, 0), (0, num_samples - audio.shape[1])))

    def fit_controls(
        self,
        physics_params: Tree,
        controls: Mapping[str, Array],
        batch: Batch,
        key: Key[Array, ""],
        steps: float | int,
        learning_rate: float | int = 0.1,
    ) -> dict[str, Array]:
        """Controls that come closer to each clip than the network's, by descent on the losses.

        All move but the pitch; see `hybrid.refinement.refine`. To be called within `jax.jit`; it
        then takes about as long as so many steps of training, and is for sounds that are to be as
        near as can be. Losses that compare whole batches (spectral convergence) let clips that are
        fitted together depend on each other.

        Args:
            physics_params: parameters of `physics`.
            controls: as from `decode`.
            batch: the clips; rows of weight 0 keep their controls.
            key: of the noise.
            steps: of the descent.
            learning_rate: of its first step.

        Returns:
            Controls, as those that are given.

        Raises:
            ValueError: steps or a learning rate that cannot be.
        """
        moving = {name: value for name, value in controls.items() if name != "f0_hz"}
        audio, counts = self.audio(batch), batch["weights"] > 0
        counted = jnp.where(counts, batch["lengths"], jnp.zeros_like(batch["lengths"]))

        def loss(moving: Tree, key: Key[Array, ""]) -> Array:
            tried = {"f0_hz": controls["f0_hz"], **moving}
            made = self.sound(physics_params, tried, key, audio.shape[1], batch["lengths"])
            return self.losses(made, audio, counted)

        fitted, _ = refine(loss, moving, key, steps, learning_rate)
        return {"f0_hz": controls["f0_hz"], **fitted}

    def resynthesize(
        self,
        physics_params: Tree,
        learner_params: Tree,
        learner_collections: Tree,
        batch: Batch,
        key: Key[Array, ""] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "batch time"], dict[str, Array], Tree]:
        """The sound of each clip made anew, the controls, and the new collections.

        Without a key the noise is always the same.
        """
        heard = self.hear(physics_params, batch)
        controls, collections = self.decode(
            learner_params, learner_collections, heard, train, batch["weights"] > 0
        )
        key = jax.random.key(0) if key is None else key
        time = batch["audio"].shape[1]
        audio = self.sound(physics_params, controls, key, time, batch["lengths"])
        return audio, controls, collections if train else learner_collections

    def loss(
        self,
        physics_params: Tree,
        learner_params: Tree,
        learner_collections: Tree,
        batch: Batch,
        key: Key[Array, ""] | None,
        train: bool,
    ) -> tuple[Float[Array, ""], Aux]:
        """The weighted sum of the losses; metrics: each by its name; outputs: `estimate`, `f0_hz`.

        A row counts wholly if its weight is above 0.
        """
        estimate, controls, collections = self.resynthesize(
            physics_params, learner_params, learner_collections, batch, key, train
        )
        counts = batch["weights"] > 0
        lengths = jnp.where(counts, batch["lengths"], jnp.zeros_like(batch["lengths"]))
        parts = self.losses.parts(estimate, self.audio(batch), lengths)
        aux = {
            "metrics": dict(parts),
            "weight": jnp.sum(counts.astype(estimate.dtype)),
            "collections": collections,
            "outputs": {"estimate": estimate, "f0_hz": controls["f0_hz"]},
        }
        return self.losses.total(parts), aux

    def examples(
        self,
        physics_params: Tree,
        learner_params: Tree,
        learner_collections: Tree,
        batch: Batch,
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Sounds `[batch, time]` to listen to and pictures `[batch, frames, ...]`, by name."""
        estimate, _, _ = self.resynthesize(
            physics_params, learner_params, learner_collections, batch
        )
        pictures = {}
        sounds = {"original": self.audio(batch), "resynthesis": estimate}
        for name, audio in sounds.items():
            again = {**batch, "audio": audio}
            pictures[f"features/{name}"], _ = self.features(physics_params, again)
        return sounds, pictures
