"""How fast a run goes, and what its batches cost on their way to the device."""

import time
from typing import Any


class Clock:
    """Counts clips, bytes and seconds between two log rows."""

    def __init__(self, clip_s: float, batch_size: int) -> None:
        """Starts counting.

        Args:
            clip_s: seconds of audio in a clip, padding included.
            batch_size: clips in a batch.
        """
        self._clip_s = clip_s
        self._batch_size = batch_size
        self.reset()

    def reset(self) -> None:
        """Starts a new lap."""
        self._start, self._steps, self._aliased, self._copied = time.perf_counter(), 0, 0, 0

    def tick(self, bridge: Any) -> None:
        """Counts a step, with the `BridgeReport` of its batch."""
        self._steps += 1
        self._aliased += bridge.aliased_bytes
        self._copied += bridge.copied_bytes

    def lap(self) -> dict[str, float]:
        """Returns the rates of this lap and starts a new one."""
        clips_per_s = self._steps * self._batch_size / (time.perf_counter() - self._start)
        result = {
            "aliased_bytes_per_batch": self._aliased / self._steps,
            "copied_bytes_per_batch": self._copied / self._steps,
            "clips_per_s": clips_per_s,
            "audio_s_per_s": clips_per_s * self._clip_s,
        }
        self.reset()
        return result
