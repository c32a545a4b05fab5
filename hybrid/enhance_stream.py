"""Enhances sounds of any length in pieces, with the same result as in one go, in constant memory.

What reaches over the cut between two pieces is carried: the front end's state, the frames that the
network still has to see, and the tails of windows that still have to be added up.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from hybrid.state import HybridState
from hybrid.tasks_enhance import Enhancement
from learners.base import call_learner

Tree = Any
Block = Float32[np.ndarray, "channels _"]


class EnhanceStream:
    """Takes blocks of a sound one after the other, and gives those of the estimate.

    The estimate comes later than the sound by a window, what the network waits for, and what fills
    a piece; `finish` gives what is left. Channels are enhanced each for itself.

    Example:
        stream = EnhanceStream(run.task, run.state, channels=2)
        estimate = [stream.push(block) for block in blocks] + [stream.finish()]
    """

    def __init__(
        self, task: Enhancement, state: HybridState, channels: int = 1, piece_frames: int = 256
    ):
        """Begins a sound.

        Args:
            task: whose network says how far it sees, by `past_frames` and `future_frames`.
            state: whose parameters to use.
            channels: of the sound.
            piece_frames: frames that are worked out at a time, rounded up to what fits the front
                end; more cost memory and save time.

        Raises:
            ValueError: the front end is not causal, or the network does not say how far it sees.
        """
        physics, learner = task.physics, task.learner
        if not physics.causal:
            reason = getattr(physics, "not_causal_because", "")
            raise ValueError(
                "sounds are enhanced in pieces, which needs a causal front end; got a "
                f"{type(physics).__name__}. {reason} Train with one that streams, such as "
                "physics.spectra:LogMel"
            )
        if not (hasattr(learner, "past_frames") and hasattr(learner, "future_frames")):
            raise ValueError(
                "sounds are enhanced in pieces, for which a network must say how many frames its "
                f"output depends on, by past_frames and future_frames; {type(learner).__name__} "
                "has none: add them, or train learners:MaskNet"
            )
        self._task, self._channels = task, channels
        self._physics = state.physics.params
        self._variables = {"params": state.learner.params, **state.collections}
        self._past, self._future = int(learner.past_frames), int(learner.future_frames)
        slow, _ = task.frames_per_feature()
        self._piece = slow * -(-piece_frames // slow)
        hop, window = task.hop_samples, task.window_samples
        self._dtype = np.dtype(jax.tree.leaves(state.learner.params)[0].dtype)
        self._waiting: Any = self._zeros(0)
        self._heard: Any = self._zeros(window - hop)
        self._carried: Any = self._zeros(window - hop)
        self._frames: Any = None
        self._late: Any = None
        self._spectra: Any = np.zeros((channels, 0, task.num_bins), np.result_type(self._dtype, 1j))
        self._given = self._done = 0
        self._finished = False
        self._front_state: Any = None
        # Of the estimate, which begins as long before the sound as a window reaches back.
        self._to_skip = window - hop
        self._to_give = 0

    def push(self, block: Block) -> Block:
        """Takes samples `[channels, time]`; returns those of the estimate that are ready.

        Raises:
            ValueError: another number of channels, or the sound has been finished.
        """
        self._check_open()
        if block.shape[0] != self._channels:
            raise ValueError(
                f"a block must have the channels of the sound, {self._channels}; got "
                f"{list(block.shape)}: give [channels, time], and channels= at the beginning"
            )
        self._given += block.shape[1]
        self._waiting = np.concatenate([self._waiting, block.astype(self._dtype)], axis=1)
        size = self._piece * self._task.hop_samples
        ready = []
        while self._waiting.shape[1] >= size:
            self._hear(self._waiting[:, :size])
            self._waiting = self._waiting[:, size:]
            ready += self._drain(None)
        return self._cut(ready)

    def finish(self) -> Block:
        """Returns the rest of the estimate, which is then as long as the sound was.

        Raises:
            ValueError: the sound has been finished.
        """
        self._check_open()
        self._finished = True
        if not self._given:
            return np.zeros((self._channels, 0), np.float32)
        total = self._task.num_frames(self._given)
        size = self._piece * self._task.hop_samples
        ready = []
        while self._done < total:
            self._hear(np.concatenate([self._waiting, self._zeros(size)], axis=1)[:, :size])
            self._waiting = self._waiting[:, size:]
            ready += self._drain(total)
        return self._cut(ready)

    def _check_open(self) -> None:
        if self._finished:
            raise ValueError(
                "a sound takes nothing after finish(); begin the next one with an EnhanceStream of "
                "its own"
            )

    def _zeros(self, samples: int) -> np.ndarray:
        return np.zeros((self._channels, samples), self._dtype)

    def _hear(self, audio: np.ndarray) -> None:
        """Adds the frames and the spectra of one piece to those that wait for the network."""
        features, self._front_state = _front_end(
            self._task, self._physics, audio, self._front_state
        )
        frames = np.asarray(self._paced(features))
        if self._frames is None:
            self._frames = frames[:, :0]
        self._frames = np.concatenate([self._frames, frames], axis=1)
        audio = np.concatenate([self._heard, audio], axis=1)
        self._spectra = np.concatenate([self._spectra, _spectra(self._task, audio)], axis=1)
        self._heard = audio[:, audio.shape[1] - self._heard.shape[1] :]

    def _paced(self, features: Any) -> Any:
        """Features of one piece at the rate of spectra, after what earlier pieces held back."""
        slow, _ = self._task.frames_per_feature()
        if slow == 1:
            return self._task.paced(features, self._piece)
        held = jnp.repeat(features, slow, axis=1)
        if self._late is None:
            self._late = jnp.zeros_like(held[:, : slow - 1])
        held = jnp.concatenate([self._late, held], axis=1)
        self._late = held[:, self._piece :]
        return held[:, : self._piece]

    def _drain(self, total: int | None) -> list[np.ndarray]:
        """Masks what can be masked; all that `total` frames leave to do, if that is known.

        The network always sees windows of one size, so that it is compiled once: what it needs
        before a piece, the piece, what it needs after it. The first window is piece from its start.
        """
        window = self._past + self._piece + self._future
        estimates = []
        while total is None or self._done < total:
            start = max(0, self._done - self._past)  # the first of the frames that are kept
            valid = window if total is None else min(window, total - start)
            if self._frames.shape[1] < valid:
                break
            # At the end of the sound there is nothing to wait for.
            ends = total is not None and start + valid == total
            stop = start + valid - (0 if ends else self._future)
            pieces = _masked(
                self._task,
                self._variables,
                _filled(self._frames, window),
                _filled(self._spectra, window),
                np.int32(valid),
            )
            estimates.append(self._added(np.asarray(pieces)[:, self._done - start : stop - start]))
            self._done = stop
            gone = max(0, self._done - self._past) - start
            self._frames, self._spectra = self._frames[:, gone:], self._spectra[:, gone:]
        return estimates

    def _added(self, pieces: np.ndarray) -> np.ndarray:
        """Overlaps and adds pieces to what is carried; returns the samples that are complete."""
        hop, count = self._task.hop_samples, pieces.shape[1]
        over = self._carried.shape[1]
        whole = np.concatenate([self._carried, self._zeros(count * hop)], axis=1)
        for start in range(0, over + hop, hop):
            part = pieces[:, :, start : start + hop].reshape(self._channels, -1)
            whole[:, start : start + count * hop] += part
        self._carried = whole[:, count * hop :]
        return whole[:, : count * hop]

    def _cut(self, estimates: list[np.ndarray]) -> Block:
        """The samples that lie within the sound."""
        whole = np.concatenate([self._zeros(0), *estimates], axis=1)
        skipped = min(self._to_skip, whole.shape[1])
        self._to_skip -= skipped
        whole = whole[:, skipped : skipped + self._given - self._to_give]
        self._to_give += whole.shape[1]
        return whole.astype(np.float32)


def _filled(array: np.ndarray, frames: int) -> np.ndarray:
    """The first frames, zeros in place of those that are missing."""
    missing = max(0, frames - array.shape[1])
    return np.pad(array[:, :frames], ((0, 0), (0, missing), (0, 0)))


@functools.partial(jax.jit, static_argnums=0)
def _front_end(task: Enhancement, params: Tree, audio: Any, state: Any) -> tuple[Any, Any]:
    features, state = task.physics.apply(params, audio, state)
    return features.reshape(*features.shape[:2], -1), state


@functools.partial(jax.jit, static_argnums=0)
def _spectra(task: Enhancement, audio: Any) -> Any:
    return task.spectra(audio)


@functools.partial(jax.jit, static_argnums=0)
def _masked(task: Enhancement, variables: Tree, frames: Any, spectra: Any, valid: Any) -> Any:
    mask = jnp.arange(frames.shape[1], dtype=valid.dtype) < valid
    mask = jnp.broadcast_to(mask[None], frames.shape[:2])
    given = call_learner(task.learner, variables, frames, train=False, mask=mask)
    return task.masked_pieces(jnp.asarray(given), spectra)
