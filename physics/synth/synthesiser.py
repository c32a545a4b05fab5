"""Exists to say what a synthesiser is: a physics module that takes controls and gives sound."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from physics import audio as ears
from physics.base import Params, Physics, State, frame_mask


@dataclasses.dataclass(frozen=True)
class Synthesiser(Physics):
    """Base of synthesisers: subclass as a frozen dataclass; also give `control_sizes`.

    Its `apply` takes a dict of controls, a frame for each `hop_samples` samples, and gives audio
    `[batch, frames * hop_samples]`. A control `[batch, frames, size]` is one that a network may
    give, any real number; where its size is 1, it is `[batch, frames]`. Those that are called
    `..._hz` are frequencies, at least 0. `key` holds random keys, one or one for each clip.

    With `lengths`, hops that end beyond them are silent, as frames of front ends are 0 there.

    Attributes:
      sample_rate_hz: samples of audio per second.
      hop_samples: samples for each frame of controls.
    """

    hop_samples: int = 64  # type: ignore[misc]

    def __post_init__(self):
        ears.check_positive(self, "sample_rate_hz", "hop_samples")
        if self.hop_samples != int(self.hop_samples) or self.hop_samples > self.sample_rate_hz / 4:
            raise ValueError(
                "hop_samples must be a whole number, at most a quarter of a second; got "
                f"{self.hop_samples} at {self.sample_rate_hz:g} Hz. Take 4 to 20 ms."
            )

    @property
    @abc.abstractmethod
    def control_sizes(self) -> dict[str, int]:
        """Names and sizes of the controls that every frame has, `key` left out."""

    def places_hz(
        self, f0_hz: Float[Array, "batch frames"]
    ) -> dict[str, Float[Array, "batch frames size"]]:
        """Of each control that is a row along frequency, where its numbers lie; none by default."""
        del f0_hz
        return {}

    @property
    def needs_key(self) -> bool:
        """Whether it makes noise, for which the controls must hold a `key`."""
        return True

    @abc.abstractmethod
    def apply(
        self, params: Params, inputs: Any, state: State = None, lengths: Any = None
    ) -> tuple[Any, State]:
        """Makes sound.

        Args:
          params: as from `init`.
          inputs: controls, see the class.
          state: from an earlier piece, which may have any number of frames; None starts afresh.
          lengths: `[batch]` valid samples; controls of frames that end beyond change nothing.

        Returns:
          Audio `[batch, frames * hop_samples]`, and the state.
        """

    def num_samples(self, num_frames: int) -> int:
        """Samples that so many frames of controls give."""
        return num_frames * self.hop_samples

    def checked(self, inputs: Any, optional: tuple[str, ...] = ()) -> dict[str, Array]:
        """Those controls that the module has, with shapes that fit.

        Raises:
          ValueError: a control is missing, or of another shape; no frame; no key for noise.
        """
        sizes = self.control_sizes
        if not isinstance(inputs, Mapping):
            raise ValueError(
                f"Controls must be a dict with {', '.join(sizes)}; got {type(inputs).__name__}. "
                "A synthesiser stands behind a network: give it what that says."
            )
        needed = [name for name in sizes if name not in optional]
        needed += ["key"] * self.needs_key
        missing = [name for name in needed if name not in inputs]
        if missing:
            raise ValueError(
                f"Controls must hold {', '.join(needed)}; {', '.join(missing)} is missing of "
                f"{', '.join(inputs)}. A key is jax.random.split(jax.random.key(0), batch)."
            )
        found: dict[str, Array] = {}
        lead = None
        for name, size in sizes.items():
            if name not in inputs:
                continue
            value = jnp.asarray(inputs[name])
            if size == 1 and value.ndim == 3 and value.shape[2] == 1:
                value = value[..., 0]
            lead = value.shape[:2] if lead is None else lead
            wanted = (*lead, size) if size > 1 else lead
            if value.shape != wanted or len(lead) != 2 or lead[1] == 0:
                axes = "[batch, frames]" if size == 1 else f"[batch, frames, {size}]"
                raise ValueError(
                    f"The control {name} must be {axes}, of at least one frame and as many as the "
                    f"others; got {value.shape}, the first control is {lead}. Stack clips along "
                    "the first axis."
                )
            if not jnp.issubdtype(value.dtype, jnp.floating):
                raise ValueError(
                    f"The control {name} must be floating point; got {value.dtype}. Cast it."
                )
            found[name] = value
        if self.needs_key:
            found["key"] = inputs["key"]
        return found

    def heard(
        self, controls: dict[str, Array], lengths: Any
    ) -> tuple[dict[str, Array], Bool[Array, "batch frames"] | None]:
        """Controls that are 0 in frames that end beyond `lengths`, and which do not."""
        if lengths is None:
            return controls, None
        n_frames = next(iter(controls.values())).shape[1]
        mask = frame_mask(n_frames, self.hop_samples, lengths)

        def cut(name, value):
            if name == "key":
                return value
            return jnp.where(mask.reshape(mask.shape + (1,) * (value.ndim - 2)), value, 0)

        return {name: cut(name, value) for name, value in controls.items()}, mask

    def told(self, audio: Array, mask: Array | None) -> Array:
        """Audio that is 0 in hops that are beyond the clip."""
        if mask is None:
            return audio
        hops = audio.reshape(*mask.shape, self.hop_samples)
        return jnp.where(mask[..., None], hops, 0).reshape(audio.shape)
