"""What the bridge reports is true: equal addresses, equal bytes, and memory that stays."""

import gc
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from data import bridge
from data.bridge import BridgeReport, to_jax
from data.loader import Loader
from data.prefetch import Prefetch
from data.tones import SpokenTones


def test_batches_cross_without_a_copy():
    batch = {
        "audio": torch.randn(64, 16_000),
        "labels": torch.arange(64, dtype=torch.int32),
        "mask": torch.ones(3, 5, dtype=torch.bool),
        "scalar": torch.tensor(2.5),
        "nothing": torch.zeros(0, 4),
    }
    arrays, report = to_jax(batch)
    assert report == BridgeReport(64 * 16_000 * 4 + 64 * 4 + 15 + 4, 0, {})
    for name, tensor in batch.items():
        if tensor.numel():
            assert arrays[name].unsafe_buffer_pointer() == tensor.data_ptr()
        np.testing.assert_array_equal(arrays[name], tensor.numpy())


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (torch.arange(5), "dtype: int64 became int32; collate int32"),
        (torch.ones(5, dtype=torch.float64), "dtype: float64 became float32"),
        (torch.randn(100)[1:], "alignment: the address is a multiple of 4 bytes, not of 64"),
        (torch.randn(4, 5).T, "strides: (1, 5) of shape (5, 4) are not contiguous"),
        (torch.randn(8, 20)[:, ::2], "strides: (20, 2)"),
        (torch.ones(3).expand(4, 3), "strides: (0, 1)"),
        (np.zeros(1000, np.float32)[1:], "alignment"),
    ],
)
def test_copies_name_their_reason(tensor, reason):
    arrays, report = to_jax({"good": torch.ones(2, 3), "x": tensor})
    assert report.aliased_bytes == 24
    assert report.copied_bytes == arrays["x"].nbytes > 0
    assert list(report.reasons) == ["x"]
    assert reason in report.reasons["x"]
    np.testing.assert_array_equal(arrays["x"], np.asarray(tensor))


def test_int64_stays_where_jax_has_it(x64):
    arrays, report = to_jax({"x": torch.arange(5)})
    assert arrays["x"].dtype == jnp.int64
    assert report.copied_bytes == 0


def test_a_device_with_its_own_memory_is_reported(monkeypatch):
    accelerator = types.SimpleNamespace(platform="gpu")
    monkeypatch.setattr(bridge, "_default_device", lambda: accelerator)
    sent = []
    monkeypatch.setattr(jax, "device_put", lambda x, device: sent.append(device) or jnp.asarray(x))
    arrays, report = to_jax({"x": torch.ones(5, 4).T})
    assert sent == [accelerator]
    assert arrays["x"].shape == (4, 5)
    assert (report.aliased_bytes, report.copied_bytes) == (0, 80)
    assert "transfer to" in report.reasons["x"]


def test_gradients_of_torch_do_not_matter():
    _, report = to_jax({"x": torch.ones(16, requires_grad=True)})
    assert report.copied_bytes == 0


def test_aliased_memory_outlives_the_tensor():
    arrays = [to_jax({"x": torch.full((1000,), float(value))})[0]["x"] for value in range(20)]
    gc.collect()
    for value, array in enumerate(arrays):
        assert float(array.min()) == float(array.max()) == value


def test_batches_of_workers_are_aliased_and_stay():
    source = SpokenTones(sample_rate_hz=8000)
    clips = source.dataset("validation")
    options = {"batch_size": 16, "seed": 2, "shuffle": True}
    kept = []
    with Loader(clips, **options, num_workers=2) as loader:
        for _ in range(9):
            arrays, report = to_jax(next(loader))
            assert report.copied_bytes == 0, report.reasons
            assert report.aliased_bytes == 16 * (4 * source.num_samples + 16)
            kept.append(arrays)
    gc.collect()
    # The workers are gone, and their tensors with them; jax still reads what they wrote.
    again = Loader(clips, **options)
    for arrays in kept:
        for name, tensor in next(again).items():
            np.testing.assert_array_equal(arrays[name], tensor.numpy())


def test_jit_reads_the_aliased_memory():
    tensor = torch.arange(32, dtype=torch.float32)
    arrays, _ = to_jax({"x": tensor})
    assert float(jax.jit(lambda x: (x * x).sum())(arrays["x"])) == float((tensor**2).sum())


@pytest.mark.parametrize("size", [1, 2, 5])
def test_prefetch_tells_what_was_used(size):
    clips = SpokenTones(sample_rate_hz=8000).dataset("test")
    options = {"batch_size": 50, "seed": 4}
    plain = Loader(clips, **options)
    with Prefetch(Loader(clips, **options), size) as batches:
        assert batches.position() == plain.position()
        for _ in range(5):
            batch, report = next(batches)
            np.testing.assert_array_equal(batch["ids"], next(plain)["ids"].numpy())
            assert batches.position() == plain.position()
            assert report.copied_bytes == 0
        position = batches.position()
    resumed = Prefetch(Loader(clips, **options, position=position), size)
    np.testing.assert_array_equal(next(resumed)[0]["ids"], next(plain)["ids"].numpy())


def test_prefetch_of_single_passes():
    clips = SpokenTones(sample_rate_hz=8000).dataset("test")
    passes = Prefetch(Loader(clips, batch_size=50, shuffle=False, repeat=False), size=2)
    for _ in range(2):
        assert [int((batch["weights"] > 0).sum()) for batch, _ in passes] == [50, 50, 14]


def test_prefetch_raises_an_error_in_its_place(commands_root):
    from data.audio_files import AudioFileError
    from data.speech_commands import SpeechCommands

    clips = SpeechCommands(root=str(commands_root)).dataset("train")
    (clips.root / clips.names[7]).write_bytes(b"")
    batches = Prefetch(Loader(clips, batch_size=3, shuffle=False), size=4)
    assert [next(batches)[0]["ids"].tolist() for _ in range(2)] == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(AudioFileError, match="0 bytes"):
        next(batches)
    assert batches.position()["batch"] == 2
    with pytest.raises(ValueError, match="size=0"):
        Prefetch(Loader(clips, batch_size=3), size=0)


def test_benchmark_copies_nothing(capsys):
    from experiments import benchmark_data

    row = benchmark_data.measure((64, 1000), repeats=3)
    assert row["aliased_bytes"] == 64_000 * 4
    assert row["copied_bytes"] == 0
    text = benchmark_data.table({"64 x 1000": row})
    lines = text.splitlines()
    assert len(lines) == 3
    assert len({line.count("|") for line in lines}) == 1
