"""Exists to turn neural activity into stabilized images: trigger, align, blend."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

if TYPE_CHECKING:
    Recent = Float[Array, "batch ears channels recent"]
    Image = Float[Array, "batch ears channels lags"]
else:
    Recent = Image = Any  # pytree fields hold anything under `jax.tree.map`


@dataclasses.dataclass(frozen=True)
class Layout:
    """How an image is made, in samples; in brackets google/carfac's names.

    Attributes:
      hop_samples: new activity per frame (`input_segment_width`).
      past_lags: lags before the trigger.
      future_lags: lags after it (`future_lags`).
      window_samples: of activity in which one trigger is sought (`trigger_window_width`).
      triggers_per_frame: windows, each overlapping half of the one before it
        (`num_triggers_per_frame`).
    """

    hop_samples: int
    past_lags: int
    future_lags: int
    window_samples: int
    triggers_per_frame: int = 2

    def __post_init__(self):
        for name, least in (
            ("hop_samples", 1),
            ("past_lags", 0),
            ("future_lags", 0),
            ("window_samples", 2),
            ("triggers_per_frame", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} of an image must be at least {least}; got {getattr(self, name)}. "
                    "Give a longer time, or a higher sample rate."
                )
        if self.hop_samples > self.buffer_samples:
            raise ValueError(
                "Frames may be as far apart as the activity that one looks at is long, or some "
                f"would never be seen; got hop_samples={self.hop_samples} with "
                f"{self.buffer_samples} samples looked at. Shorten the hop, lengthen the trigger "
                "window, or take more triggers per frame."
            )

    @property
    def n_lags(self) -> int:
        """Lags of an image (`sai_width`); the trigger itself is at index `past_lags`."""
        return self.past_lags + 1 + self.future_lags

    @property
    def buffer_samples(self) -> int:
        """Samples of recent activity that a frame looks at."""
        return self.n_lags + int((1 + (self.triggers_per_frame - 1) / 2) * self.window_samples)

    @property
    def window_starts(self) -> tuple[int, ...]:
        """Where in the recent activity the trigger windows begin, oldest first."""
        step = self.window_samples // 2
        last = self.buffer_samples - self.window_samples - self.future_lags
        return tuple(last - step * i for i in reversed(range(self.triggers_per_frame)))


@flax.struct.dataclass
class SaiMemory:
    """What the next frame needs of those before: `[batch, ears, channels, ...]`.

    Attributes:
      recent: the last `Layout.buffer_samples` samples of activity.
      image: the last image.
    """

    recent: Recent
    image: Image


def initial_memory(layout: Layout, batch: int, ears: int, channels: int, dtype: Any) -> SaiMemory:
    """No activity so far, and a blank image."""
    rows = (batch, ears, channels)
    return SaiMemory(
        jnp.zeros((*rows, layout.buffer_samples), dtype), jnp.zeros((*rows, layout.n_lags), dtype)
    )


def sai_frames(
    nap: Float[Array, "batch time ears channels"],
    layout: Layout,
    memory: SaiMemory | None = None,
    reduce: Callable[[Any], Any] | None = None,
) -> tuple[Any, SaiMemory]:
    """Stabilized auditory images of neural activity, one for each hop.

    In each channel, the largest sample in a trigger window (weighted by half a cycle of a sine) is
    a trigger. The activity around it is blended into the image, with a weight `alpha` that grows
    with the height `p` of the trigger: alpha = (0.025 + p) / (0.5 + p). Where nothing is above 0
    the middle of the window serves as the trigger, of height 1. Lyon, Human and Machine Hearing
    (2017), chapter 21; windows and weights are those of google/carfac's `sai.py`.

    Gradients flow through the values, of the trigger's height among them, and not through the
    choice of the trigger: an image jumps where another sample becomes the largest, and has no
    gradient there; where two are nearly equal, rounding chooses. Only reverse mode is defined.

    Args:
      nap: activity at full rate; what is left over after the last whole hop is not used.
      layout: of the images.
      memory: what an earlier piece returned; None starts afresh.
      reduce: applied to each image `[batch, ears, channels, lags]` as soon as it is there, so that
        no more than its result is kept.

    Returns:
      Images `[batch, frames, ears, channels, lags]`, oldest lag first, the trigger at index
      `layout.past_lags` (or `reduce` of each, stacked on axis 1), and the memory afterwards.
    """
    batch, time, ears, channels = nap.shape
    n_frames = time // layout.hop_samples
    hops = nap[:, : n_frames * layout.hop_samples]
    hops = hops.reshape(batch, n_frames, layout.hop_samples, ears, channels)
    hops = hops.transpose(1, 0, 3, 4, 2)
    if memory is None:
        memory = initial_memory(layout, batch, ears, channels, nap.dtype)

    def step(memory: SaiMemory, hop: Array) -> tuple[SaiMemory, Any]:
        recent = jnp.concatenate([memory.recent, hop], -1)[..., -layout.buffer_samples :]
        image = _blend(recent, memory.image, layout)
        return SaiMemory(recent, image), image if reduce is None else reduce(image)

    after, frames = jax.lax.scan(step, _vary_like(hops, memory), hops)
    return jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), frames), after


def _blend(
    recent: Float[Array, "batch ears channels recent"],
    image: Float[Array, "batch ears channels lags"],
    layout: Layout,
) -> Float[Array, "batch ears channels lags"]:
    """Blends the activity around each trigger into the image, oldest trigger first."""
    size = layout.window_samples
    weights = np.sin(np.linspace(np.pi / size, np.pi, size))
    window, middle = weights[None, None, None], int(np.argmax(weights))
    for start in layout.window_starts:
        weighted = recent[..., start : start + size] * jnp.asarray(window, recent.dtype)
        choice = jnp.argmax(jax.lax.stop_gradient(weighted), axis=-1).astype(jnp.int32)
        peak = _read(weighted, choice, 1)
        heard = peak > 0
        peak = jnp.where(heard, peak, weights[middle].astype(recent.dtype))
        trigger = jnp.where(heard[..., 0], choice, middle)
        alpha = (0.025 + peak) / (0.5 + peak)
        first = start - layout.past_lags
        stretch = recent[..., first : first + size - 1 + layout.n_lags]
        image = image + alpha * (_read(stretch, trigger, layout.n_lags) - image)
    return image


def _gather(stretch: Array, first: Array, length: int) -> Array:
    """So many samples of each row `[..., all]`, from its own `first` `[...]` on."""
    rows = stretch.reshape(-1, stretch.shape[-1])
    flat = jax.vmap(lambda row, at: jax.lax.dynamic_slice_in_dim(row, at, length))(
        rows, first.reshape(-1)
    )
    return flat.reshape(*first.shape, length)


_read: Any = jax.custom_vjp(_gather, nondiff_argnums=(2,))


def _read_forward(stretch: Array, first: Array, length: int) -> Any:
    return _read(stretch, first, length), (first, stretch.shape[-1] - length)


def _read_backward(length: int, kept: Any, cotangent: Array) -> Any:
    # Padded rows, read from elsewhere: what JAX would derive is a scatter, which XLA makes a loop
    # over all rows of on a CPU.
    first, spare = kept
    padded = jnp.pad(cotangent, [(0, 0)] * (cotangent.ndim - 1) + [(spare, spare)])
    return _read(padded, spare - first, length + spare), None


_read.defvjp(_read_forward, _read_backward)


def _vary_like(hops: Array, memory: SaiMemory) -> SaiMemory:
    """Under `shard_map`, marks a memory that is the same on all devices as the activity is."""

    def vary(leaf: Array) -> Array:
        varying = jax.typeof(hops).manual_axis_type.varying
        missing = tuple(varying - jax.typeof(leaf).manual_axis_type.varying)
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(vary, memory)
