"""Changes the sample rate of a sound of any length in pieces, as if it had been done in one go."""

import functools
import math
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64
from scipy import signal

# Zero crossings of the windowed sinc on each side, and its window: those of scipy's resample_poly.
_CROSSINGS = 10
_WINDOW: Any = ("kaiser", 5.0)
_LEAST_PIECE = 16_384

Block = Float32[np.ndarray, "channels _"]


class StreamResampler:
    """Takes blocks of a sound, and gives those of the sound at another rate.

    The result equals `scipy.signal.resample_poly` of the whole, up to rounding, and is as long.
    Memory does not grow with the sound: a few seconds of it are kept, whatever the rates.
    """

    def __init__(self, from_hz: int, to_hz: int, channels: int = 1):
        """Begins a sound.

        Args:
            from_hz: its sample rate.
            to_hz: the rate wanted.
            channels: of the sound.

        Raises:
            ValueError: a rate that is not positive.
        """
        if from_hz < 1 or to_hz < 1:
            raise ValueError(
                f"sample rates are whole numbers of hertz above 0; got {from_hz} and {to_hz}"
            )
        common = math.gcd(from_hz, to_hz)
        self._up, self._down = to_hz // common, from_hz // common
        reach = -(-_CROSSINGS * max(self._up, self._down) // self._up) + 1
        # Pieces and what surrounds them begin where samples of both rates coincide.
        self._around = -(-reach // self._down) * self._down
        self._piece = -(-_LEAST_PIECE // self._down) * self._down
        self._waiting: Any = np.zeros((channels, self._around), np.float32)
        self._given = self._returned = 0
        self._channels, self._finished = channels, False

    def push(self, block: Block) -> Block:
        """Takes samples `[channels, time]`; returns those at the other rate that are ready.

        Raises:
            ValueError: another number of channels, or the sound has been finished.
        """
        if self._finished or block.shape[0] != self._channels:
            found = "it is finished" if self._finished else f"got {list(block.shape)}"
            raise ValueError(
                f"a sound of {self._channels} channels takes blocks [{self._channels}, time] until "
                f"finish(); {found}: begin a StreamResampler for each sound"
            )
        self._given += block.shape[1]
        if self._up == self._down:
            return block
        self._waiting = np.concatenate([self._waiting, block], axis=1)
        ready = [self._waiting[:, :0]]
        while self._waiting.shape[1] >= self._piece + 2 * self._around:
            ready.append(self._next())
        return self._counted(np.concatenate(ready, axis=1))

    def finish(self) -> Block:
        """Returns the rest: ceil(samples * to_hz / from_hz) are given in all."""
        self._finished = True
        total = -(-self._given * self._up // self._down)
        ready = [self._waiting[:, :0]]
        if self._up == self._down:
            return ready[0]
        missing = total - self._returned
        while missing > 0:
            short = self._piece + 2 * self._around - self._waiting.shape[1]
            self._waiting = np.pad(self._waiting, ((0, 0), (0, max(0, short))))
            ready.append(self._next()[:, :missing])
            missing -= ready[-1].shape[1]
        return self._counted(np.concatenate(ready, axis=1))

    def _next(self) -> Block:
        """Works out one piece, of which all that it depends on is there."""
        size = self._piece + 2 * self._around
        taps = _taps(self._up, self._down)
        whole = signal.resample_poly(
            self._waiting[:, :size].astype(np.float64), self._up, self._down, axis=1, window=taps
        )
        start = self._around // self._down * self._up
        stop = start + self._piece // self._down * self._up
        self._waiting = self._waiting[:, self._piece :]
        return whole[:, start:stop].astype(np.float32)

    def _counted(self, block: Block) -> Block:
        self._returned += block.shape[1]
        return block


@functools.lru_cache(maxsize=8)
def _taps(up: int, down: int) -> Float64[np.ndarray, " taps"]:
    """The low-pass that resample_poly designs, designed once."""
    half = _CROSSINGS * max(up, down)
    taps: Any = signal.firwin(2 * half + 1, 1 / max(up, down), window=_WINDOW)
    taps.setflags(write=False)
    return taps
