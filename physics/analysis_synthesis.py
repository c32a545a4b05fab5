"""Exists to train a front end and a synthesiser as one module, with a network in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from physics.base import Params, Physics, State
from physics.stacking import built

_FRONT = "physics.spectra:LogMel"
_SYNTH = "physics.synth:HarmonicNoise"


@dataclasses.dataclass(frozen=True)
class AnalysisSynthesis(Physics):
    """A front end, `apply`, and a synthesiser, `synthesize`, that share sample rate and frames.

    The params are {"front": ..., "synth": ...}.

    From a config: `physics.target="physics.analysis_synthesis:AnalysisSynthesis"`,
    `physics.kwargs={"hop_s": 0.008, "front": {"target": "physics.carfac:Carfac"}}`.

    Attributes:
      sample_rate_hz: samples of audio per second.
      hop_s: seconds per frame; settings below that have such a field and leave it open get it.
      front: a physics module, or its settings, of which "target" is its import path.
      synth: a synthesiser, or its settings, likewise: a physics module whose `apply` takes controls
        and that has `control_sizes`.
    """

    sample_rate_hz: Any = 16000.0
    hop_s: float | int = 0.008
    front: Any = None
    synth: Any = None

    def __post_init__(self):
        hop = max(1, round(self.hop_s * float(self.sample_rate_hz)))
        front, synth = self.front or {}, self.synth or {}
        if isinstance(synth, Mapping):
            synth = {"hop_samples": hop} | dict(synth)
        object.__setattr__(
            self, "front", built(front, _FRONT, self.sample_rate_hz, {"hop_s": self.hop_s})
        )
        object.__setattr__(self, "synth", built(synth, _SYNTH, self.sample_rate_hz))
        if not hasattr(self.synth, "control_sizes"):
            raise ValueError(
                "A synthesiser must say by `control_sizes` what it is to be given; got "
                f"{self.synth!r}. Take physics.synth:HarmonicNoise."
            )
        if self.front.hop_samples != self.synth.hop_samples:
            hop_s = self.synth.hop_samples / float(self.sample_rate_hz)
            raise ValueError(
                "Front end and synthesiser share their frames; got hops of "
                f"{self.front.hop_samples} and {self.synth.hop_samples} samples. Give the front "
                f"end hop_s={hop_s:g}, or the synthesiser another hop_samples."
            )

    @property
    def hop_samples(self) -> int:
        """Samples of audio per frame, the same for both."""
        return self.front.hop_samples

    @property
    def causal(self) -> bool:  # type: ignore[override]
        """Whether the front end may be streamed."""
        return self.front.causal

    @property
    def not_causal_because(self) -> str:  # type: ignore[override]
        """Why it may not."""
        return getattr(self.front, "not_causal_because", "")

    def num_frames(self, num_samples: int) -> int:
        """Frames of the front end."""
        return self.front.num_frames(num_samples)

    def specs(self) -> Params:
        """`Parameter` of every leaf of both."""
        return {"front": self.front.specs(), "synth": self.synth.specs()}

    def init(self, key: Any) -> Params:
        """Initial params of both."""
        return {"front": self.front.init(key), "synth": self.synth.init(key)}

    def project(self, params: Params) -> Params:
        """Brings params of both back into bounds."""
        return {
            name: getattr(part, "project", lambda p: p)(params[name])
            for name, part in (("front", self.front), ("synth", self.synth))
        }

    def channel_frequencies_hz(self, params: Params) -> Any:
        """Of the front end's channels, where it has them."""
        own = getattr(self.front, "channel_frequencies_hz", super().channel_frequencies_hz)
        return own(params["front"])

    def init_state(self, batch_shape: Any) -> State:
        """Memories of the front end at rest."""
        return self.front.init_state(batch_shape)

    def apply(self, params: Params, inputs: Any, state: State = None, lengths: Any = None) -> Any:
        """Features of audio; arguments and results are the front end's."""
        return self.front.apply(params["front"], inputs, state, lengths)

    def synthesize(
        self, params: Params, controls: Any, state: State = None, lengths: Any = None
    ) -> Any:
        """Audio `[batch, time]` from controls, and the state; arguments are the synthesiser's."""
        return self.synth.apply(params["synth"], controls, state, lengths)
