"""Noisy sound to clean sound: features, a network's mask, and short-time spectra that it weighs.

Frame i of features and spectra alike ends with sample (i + 1) * hop, so that a causal front end and
a causal network make a causal enhancer, which `hybrid.enhance_stream` runs over sounds of any
length.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int, Key

from hybrid import metrics
from hybrid.losses import WeightedSum, build_losses, si_sdr_db
from hybrid.tasks import Aux, Batch, FrontEndTask, Tree
from physics.audio import samples as in_samples
from physics.base import sample_mask
from physics.spectra import short_time

SI_SDR = {"si_sdr": {"target": "hybrid.losses:SiSdr"}}


@dataclasses.dataclass(frozen=True)
class Enhancement(FrontEndTask):
    """A mask on the spectra of `audio`, made to sound like `clean`.

    Spectra have a square-root Hann window both ways. The network gives `[batch, frames, bins]`,
    gains, or `[batch, frames, 2 * bins]`, real and imaginary parts, for the `num_bins` of the task.
    A front end of another frame rate is brought to that of the spectra: a faster one by means over
    its frames, a slower one by holding each frame until the next.

    Attributes:
        losses: as of `hybrid.losses.build_losses`, by name; weighted, they add up to the loss.
        hop_s: seconds from spectrum to spectrum, rounded to samples.
        window_s: seconds that a spectrum sees, two hops or more, rounded to whole hops.
    """

    losses: Any = dataclasses.field(default_factory=lambda: dict(SI_SDR))
    hop_s: float | int = 0.01
    window_s: float | int = 0.03

    def __post_init__(self) -> None:
        """Checks the settings, and builds the losses of a spec."""
        if not isinstance(self.losses, WeightedSum):
            built = build_losses(self.losses, self.physics.sample_rate_hz)
            object.__setattr__(self, "losses", built)
        if not self.hop_s > 0 or self.window_samples < 2 * self.hop_samples:
            raise ValueError(
                "window_s must be two hops or more, or sounds cannot be put together again; got "
                f"window_s={self.window_s:g} and hop_s={self.hop_s:g}; give window_s="
                f"{3 * self.hop_s:g}"
            )
        self.frames_per_feature()

    @property
    def hop_samples(self) -> int:
        """Samples from spectrum to spectrum."""
        return in_samples(self.hop_s, self.physics.sample_rate_hz)

    @property
    def window_samples(self) -> int:
        """Samples that a spectrum sees."""
        return round(self.window_s / self.hop_s) * self.hop_samples

    @property
    def num_bins(self) -> int:
        """Bins of a spectrum."""
        return self.window_samples // 2 + 1

    def num_frames(self, num_samples: int) -> int:
        """Spectra that see any of so many samples."""
        return -(-num_samples // self.hop_samples) + self.window_samples // self.hop_samples - 1

    def frames_per_feature(self) -> tuple[int, int]:
        """Returns (p, q): p spectra last as long as q frames of features; one of them is 1.

        Raises:
            ValueError: neither is a whole number.
        """
        ours, theirs = self.hop_samples, self.physics.hop_samples
        if ours % theirs and theirs % ours:
            raise ValueError(
                "the hops of front end and spectra must be multiples of one another, got "
                f"{theirs} and {ours} samples: give both one value, by physics.kwargs "
                f"{{'hop_s': {self.hop_s:g}}} or task.kwargs "
                f"{{'hop_s': {theirs / self.physics.sample_rate_hz:g}, 'window_s': ...}}"
            )
        return max(1, theirs // ours), max(1, ours // theirs)

    def init(self, key: Key[Array, ""], batch: dict[str, Any]) -> tuple[Tree, Tree, Tree]:
        """Returns initial parameters; the network sees the shape of the features."""
        if "clean" not in batch:
            raise ValueError(
                "enhancement needs `clean` [batch, time] beside `audio`, got "
                f"{', '.join(sorted(batch))}: take data of pairs, such as "
                "data.noisy_speech:NoisySpeech"
            )
        return super().init(key, batch)

    def given(
        self, physics_params: Tree, batch: Batch
    ) -> tuple[Float[Array, "batch frames channels"], Bool[Array, "batch frames"]]:
        """Features at the rate of the spectra, see `heard`."""
        return self.heard(physics_params, self.audio(batch), batch["lengths"])

    def heard(
        self,
        physics_params: Tree,
        audio: Float[Array, "batch time"],
        lengths: Int[Array, " batch"],
    ) -> tuple[Float[Array, "batch frames channels"], Bool[Array, "batch frames"]]:
        """Features at the rate of the spectra, and which of these see a valid sample."""
        hop, frames = self.hop_samples, self.num_frames(audio.shape[1])
        counts = jnp.where(lengths > 0, self.num_frames(0) - (-lengths // hop), 0)
        counts = counts.astype(lengths.dtype)
        # The front end goes on to hear silence as long as a spectrum still sees the clip.
        ends = jnp.pad(audio, ((0, 0), (0, frames * hop - audio.shape[1])))
        ends = jnp.where(sample_mask(ends.shape[1], lengths), ends, jnp.zeros_like(ends))
        features, _ = self.physics.apply(physics_params, ends, lengths=counts * hop)
        paced = self.paced(features.reshape(*features.shape[:2], -1), frames)
        return paced, sample_mask(frames, counts)

    def paced(
        self, features: Float[Array, "batch given channels"], frames: int
    ) -> Float[Array, "batch frames channels"]:
        """Features of the front end at the rate of the spectra, none ahead of its time."""
        slow, fast = self.frames_per_feature()
        if fast > 1:
            batch, _, channels = features.shape
            return features[:, : frames * fast].reshape(batch, frames, fast, channels).mean(axis=2)
        held = jnp.repeat(features, slow, axis=1)
        # A slow frame ends with the last of the spectra that it lasts for: it is known from there.
        late = jnp.pad(held, ((0, 0), (slow - 1, slow), (0, 0)))
        return late[:, :frames]

    def taps(self) -> Float[np.ndarray, " samples"]:
        """The window of spectra, and of what is put together again."""
        return np.sqrt(short_time.window_taps("hann", self.window_samples))

    def spectra(self, audio: Float[Array, "batch time"]) -> Complex[Array, "batch frames bins"]:
        """Spectra of audio that begins a window less one hop before the first of them ends."""
        return short_time.stft(audio, self.taps(), self.hop_samples, center=False)

    def masked_pieces(
        self,
        mask: Any,
        spectra: Complex[Array, "batch frames bins"],
    ) -> Float[Array, "batch frames samples"]:
        """Windowed pieces of the estimate, one a spectrum, to be overlapped and added.

        Raises:
            ValueError: the network does not give a mask for these bins.
        """
        bins = spectra.shape[-1]
        if mask.shape not in (spectra.shape, (*spectra.shape[:-1], 2 * bins)):
            raise ValueError(
                f"the network must give a mask [batch, frames, {bins}], or of {2 * bins} for real "
                f"and imaginary parts, for {spectra.shape[1]} frames; got {mask.shape}: take a "
                f"network that masks frames, such as learners:MaskNet with num_bins={bins}"
            )
        if mask.shape[-1] > bins:
            kept = jax.lax.complex(mask[..., :bins], mask[..., bins:]) * spectra
        else:
            kept = jax.lax.complex(mask * spectra.real, mask * spectra.imag)
        taps = self.taps()
        # The windows of both ways multiply to Hann windows, whose sum is the same everywhere.
        gain = self.hop_samples / np.sum(taps**2)
        return short_time.weigh(jnp.fft.irfft(kept, self.window_samples), gain * taps)

    def enhance(
        self,
        physics_params: Tree,
        learner_params: Tree,
        learner_collections: Tree,
        batch: Batch,
        key: Key[Array, ""] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "batch time"], Tree]:
        """The estimate of each clip, zero behind its length, and the new collections.

        Args:
            physics_params: parameters of `physics`.
            learner_params: parameters of `learner`.
            learner_collections: its other collections.
            batch: `audio [batch, time]`, `lengths [batch]`, `weights [batch]`.
            key: for dropout; None where `train` is False.
            train: whether this is a training step.
        """
        audio, lengths = self.audio(batch), batch["lengths"]
        time = audio.shape[1]
        features, mask = self.heard(physics_params, audio, lengths)
        counted = mask & (batch["weights"] > 0)[:, None]
        given, collections = self.answer(
            learner_params, learner_collections, features, counted, key, train
        )
        past = self.window_samples - self.hop_samples
        after = features.shape[1] * self.hop_samples - time
        spectra = self.spectra(jnp.pad(audio, ((0, 0), (past, after))))
        pieces = self.masked_pieces(given, spectra)
        estimate = short_time.overlap_add(pieces, self.hop_samples)[:, past : past + time]
        estimate = jnp.where(sample_mask(time, lengths), estimate, jnp.zeros_like(estimate))
        return estimate, collections

    def loss(
        self,
        physics_params: Tree,
        learner_params: Tree,
        learner_collections: Tree,
        batch: Batch,
        key: Key[Array, ""] | None,
        train: bool,
    ) -> tuple[Float[Array, ""], Aux]:
        """The weighted sum of the losses; outputs `estimate` [batch, time].

        Metrics: `si_sdr_db`, `si_sdr_improvement_db` (over the noisy input), and each loss by its
        name if there are several. A row counts wholly if its weight is above 0.
        """
        estimate, collections = self.enhance(
            physics_params, learner_params, learner_collections, batch, key, train
        )
        dtype = estimate.dtype
        clean, noisy = batch["clean"].astype(dtype), batch["audio"].astype(dtype)
        counts = batch["weights"] > 0
        lengths = jnp.where(counts, batch["lengths"], jnp.zeros_like(batch["lengths"]))
        weights = counts.astype(dtype)
        reached = si_sdr_db(estimate, clean, lengths)
        scores = {"si_sdr_db": reached}
        scores["si_sdr_improvement_db"] = reached - si_sdr_db(noisy, clean, lengths)
        named = {name: metrics.weighted_mean(score, weights) for name, score in scores.items()}
        parts = self.losses.parts(estimate, clean, lengths)
        if len(parts) > 1:
            named |= parts
        aux = {
            "metrics": named,
            "weight": jnp.sum(weights),
            "collections": collections,
            "outputs": {"estimate": estimate},
        }
        return self.losses.total(parts), aux

    def examples(
        self,
        physics_params: Tree,
        learner_params: Tree,
        learner_collections: Tree,
        batch: Batch,
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """What a person may listen to and look at, by name.

        Returns:
            Sounds `[batch, time]`: `noisy`, `estimate` and `clean`. Pictures `[batch, frames,
            ...]`: a spectrogram of each in dB below the loudest bin of the noisy one, 80 dB deep,
            and the `features`.
        """
        estimate, _ = self.enhance(physics_params, learner_params, learner_collections, batch)
        audio = batch["audio"].astype(estimate.dtype)
        sounds = {"noisy": audio, "estimate": estimate}
        sounds["clean"] = batch["clean"].astype(estimate.dtype)
        pictures = {}
        # One scale for the three, so that what was taken away can be seen.
        loudest = jnp.max(short_time.power(self.spectra(audio)), (1, 2), keepdims=True)
        for name, sound in sounds.items():
            power = short_time.power(self.spectra(sound)) / jnp.maximum(loudest, 1e-30)
            level_db = 10 * jnp.log10(jnp.maximum(power, 1e-8))
            pictures[f"spectrogram/{name}"] = level_db[:, :, ::-1]  # drawn from the top
        pictures["features"], _ = self.heard(physics_params, audio, batch["lengths"])
        return sounds, pictures
