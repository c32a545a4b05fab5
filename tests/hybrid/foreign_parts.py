"""Batches of toy clips as other libraries give them, importable by path."""

import time

import numpy as np
import torch
from toy_parts import ToySet, ToySource

from data import Batches

SAMPLES = 160


class SlowList(list):
    """A list of batches that takes its time, so that a run can be killed in it."""

    def __iter__(self):
        for batch in super().__iter__():
            time.sleep(0.05)
            yield batch


def toy_batches(split, batch_size=8, count=6):
    """Batches as tf.data and NumPy make them: float64, int64, no ids, names of their own."""
    seed = ("train", "validation", "test").index(split)
    clips = ToySet(count * batch_size, SAMPLES, seed)
    for first in range(0, len(clips), batch_size):
        items = [clips[first + row] for row in range(batch_size)]
        yield {
            "waveform": np.stack([item["audio"] for item in items]).astype(np.float64),
            "lengths": np.stack([item["lengths"] for item in items]).astype(np.int64),
            "label": torch.tensor([int(item["labels"]) for item in items]),
        }


def listed(split, batch_size, slow=False):
    """A list of them."""
    batches = list(toy_batches(split, batch_size))
    return SlowList(batches) if slow and split == "train" else batches


def short(split, batch_size):
    """Batches of which one has other shapes."""
    for index, batch in enumerate(toy_batches(split, batch_size)):
        yield batch | ({"waveform": batch["waveform"][:, :-16]} if index == 3 else {})


SPLITS = {name: list(toy_batches(name)) for name in ("train", "validation", "test")}
ONCE = SPLITS | {"train": toy_batches("train")}


class OwnSource(ToySource):
    """A source of one's own whose splits are batches."""

    def dataset(self, split):
        return Batches(
            toy_batches, rename={"waveform": "audio", "label": "labels"}, split=split, count=3
        )


class Careless(ToySource):
    """Gives one and the same generator twice."""

    def __init__(self):
        super().__init__()
        self.train = toy_batches("train")

    def dataset(self, split):
        return self.train
