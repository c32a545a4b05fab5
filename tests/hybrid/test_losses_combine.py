"""Sums of losses come from configs, whose mistakes are named; sources find their order."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from hybrid.losses import (
    L1,
    L2,
    CochlearLoss,
    MultiResolutionStft,
    PermutationInvariant,
    SiSdr,
    Stft,
    StrfLoss,
    WeightedSum,
    build_losses,
)
from hybrid.targets import BuildError


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_a_weighted_sum_and_its_parts(quickly):
    both = WeightedSum((("l1", 2.0, L1()), ("l2", 0.5, L2())))
    estimate, target = jnp.asarray(noise(3, 50)), jnp.asarray(noise(3, 50, seed=1))
    lengths = jnp.asarray([50, 20, 0], jnp.int32)
    parts, alone, whole = quickly(
        lambda *x: (both.parts(*x), L2()(*x), both(*x)),
    )(estimate, target, lengths)
    assert list(parts) == ["l1", "l2"]
    assert float(parts["l2"]) == pytest.approx(float(alone))
    expected = 2 * float(parts["l1"]) + 0.5 * float(parts["l2"])
    assert float(whole) == pytest.approx(expected)
    assert float(both.total(parts)) == pytest.approx(expected)
    assert hash(both) == hash(WeightedSum([["l1", 2, L1()], ["l2", 0.5, L2()]]))


def test_sums_without_meaning_are_refused():
    with pytest.raises(ValueError, match=r"of different names; got \['a', 'a'\]"):
        WeightedSum((("a", 1.0, L1()), ("a", 1.0, L2())))
    with pytest.raises(ValueError, match="one loss or more"):
        WeightedSum(())
    with pytest.raises(ValueError, match="'a' has nan"):
        WeightedSum((("a", float("nan"), L1()),))


def test_configs_and_weights_of_other_kinds():
    plain = {"l1": {"target": "hybrid.losses:L1", "weight": 2}}
    built = build_losses(ConfigDict(plain), 8000)
    assert built == WeightedSum((("l1", 2.0, L1()),))
    plain["l1"]["weight"] = np.float32(2)
    assert build_losses(plain, 8000) == built
    assert build_losses({"l1": ConfigDict({"target": "hybrid.losses:L1", "weight": 2})}, 8000) == (
        built
    )
    plain["l1"]["weight"] = True
    with pytest.raises(BuildError, match=r"l1\.weight must be a number, got True"):
        build_losses(plain, 8000)


def test_losses_from_a_config():
    spec = {
        "si_sdr": {"target": "hybrid.losses:SiSdr", "weight": 2},
        "mel": {
            "target": "hybrid.losses:MultiResolutionStft",
            "kwargs": {"n_fft": [256], "hop_samples": [64], "window_samples": [256], "n_mels": 8},
        },
        "strf": {"target": "hybrid.losses:StrfLoss", "kwargs": {"pairs": [[10.0, 0.1]]}},
        "ear": {
            "target": "hybrid.losses:CochlearLoss",
            "kwargs": {"initial": {"car.ohc_health": 0.5}, "sample_rate_hz": 16000},
        },
        "pit": {
            "target": "hybrid.losses:PermutationInvariant",
            "kwargs": {"loss": {"target": "hybrid.losses:Stft", "kwargs": {"n_mels": 16}}},
        },
    }
    built = build_losses(spec, sample_rate_hz=8000)
    losses = {name: loss for name, _, loss in built.losses}
    assert [weight for _, weight, _ in built.losses] == [2.0, 1.0, 1.0, 1.0, 1.0]
    assert losses == {
        "si_sdr": SiSdr(),
        "mel": MultiResolutionStft((256,), (64,), (256,), n_mels=8, sample_rate_hz=8000),
        "strf": StrfLoss(8000, pairs=((10, 0.1),)),
        "ear": CochlearLoss(16000, initial={"car.ohc_health": 0.5}),
        "pit": PermutationInvariant(Stft(n_mels=16, sample_rate_hz=8000)),
    }
    assert hash(built) == hash(build_losses(spec, sample_rate_hz=8000))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "losses must name one loss or more"),
        ({"a": {"weight": 1.0}}, r"losses\.a must have a target.*got \{'weight': 1.0\}"),
        ({"a": {"target": "hybrid.losses:SiSdrr"}}, r"losses\.a\.target: .* near names: SiSdr"),
        ({"a": {"target": "hybrid.losses:L1", "wieght": 2}}, r"losses\.a\.wieght .*mean weight"),
        ({"a": {"target": "hybrid.losses:L1", "weight": "x"}}, r"a\.weight must be a number"),
        (
            {"a": {"target": "hybrid.losses:SiSdr", "kwargs": {"zero_men": True}}},
            r"losses\.a\.kwargs\.zero_men \(of hybrid\.losses:SiSdr\).*did you mean zero_mean",
        ),
        (
            {"a": {"target": "hybrid.losses:Stft", "kwargs": {"n_fft": 255}}},
            r"losses\.a \(hybrid\.losses:Stft\) could not be built: n_fft must be even",
        ),
        (
            {"a": {"target": "hybrid.losses:L1", "weight": float("inf")}},
            "losses: Weights must be finite",
        ),
        ({"a": {"target": "subprocess:Popen"}}, r"a\.target is 'subprocess:Popen', of Python's"),
        ({"a": {"target": "hybrid.build:PHYSICS_PROTOCOL"}}, r"a\.target must be a class or"),
        (
            {"a": {"target": "hybrid.losses.modulation:log_grid"}},
            r"a\.target must satisfy the loss protocol",
        ),
    ],
)
def test_mistakes_in_a_config_are_named(spec, message):
    with pytest.raises(BuildError, match=message):
        build_losses(spec, sample_rate_hz=8000)


def test_the_best_order_of_sources(quickly):
    target = noise(4, 3, 100)
    orders = np.array([[2, 0, 1], [0, 1, 2], [1, 0, 2], [2, 1, 0]])
    mixed = np.take_along_axis(target, orders[:, :, None], axis=1) + 0.1 * noise(4, 3, 100, seed=1)
    loss = PermutationInvariant(L2())
    lengths = np.array([100, 60, 0, 100], np.int32)
    values, found = quickly(loss.aligned)(mixed, target, lengths)
    for row, n in enumerate(lengths):
        costs = {
            order: np.mean((mixed[row, :, :n] - target[row, list(order), :n]) ** 2)
            for order in itertools.permutations(range(3))
            if n
        }
        if n:
            assert tuple(np.asarray(found[row])) == min(costs, key=costs.get) == tuple(orders[row])
            assert float(values[row]) == pytest.approx(min(costs.values()), rel=1e-5)
    assert float(values[2]) == 0
    value, gradient = quickly(jax.value_and_grad(loss))(mixed, target, lengths)
    assert float(value) == pytest.approx(float(np.sum(values)) / 3, rel=1e-5)
    expected = 2 * (mixed - np.take_along_axis(target, orders[:, :, None], axis=1))
    expected /= 3 * 3 * np.maximum(lengths, 1)[:, None, None]
    expected *= np.arange(100)[None, None] < lengths[:, None, None]
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-8)


def test_orders_for_losses_of_whole_batches_and_of_somebody_else(quickly):
    target = noise(2, 2, 300)
    swapped = target[:, ::-1] + 0.05 * noise(2, 2, 300, seed=1)
    spectral = PermutationInvariant(Stft(n_fft=64, hop_samples=32, window_samples=64))
    _, found = quickly(spectral.aligned)(swapped, target)
    np.testing.assert_array_equal(found, [[1, 0], [1, 0]])

    def foreign(estimate, target, lengths):
        del lengths
        return jnp.max(jnp.abs(estimate - target))

    values, found = quickly(PermutationInvariant(foreign).aligned)(swapped, target)
    np.testing.assert_array_equal(found, [[1, 0], [1, 0]])
    expected = np.abs(swapped - target[:, ::-1]).max(axis=2).mean(axis=1)
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_clips_without_a_sample_of_somebody_elses_loss(quickly):
    """A ratio of nothing to nothing has neither value nor gradient, and must not count."""

    def foreign(estimate, target, lengths):
        del lengths
        return jnp.sum(jnp.abs(estimate - target)) / jnp.sum(target**2)

    estimate, target = jnp.asarray(noise(2, 2, 30)), jnp.asarray(noise(2, 2, 30, seed=1))
    target = target.at[1, :, 10:].set(jnp.nan)
    loss = PermutationInvariant(foreign)
    for lengths, others in (([30, 0], 0), ([30, 10], 1)):
        value, gradient = quickly(jax.value_and_grad(loss))(
            estimate, target, jnp.asarray(lengths, jnp.int32)
        )
        clips = [(estimate[:1], target[:1]), (estimate[1:, :, :10], target[1:, :, :10])]
        each = [float(loss(*clip)) for clip in clips[: 1 + others]]
        assert float(value) == pytest.approx(np.mean(each), rel=1e-5)
        assert np.isfinite(gradient).all()


def test_equal_sources_take_the_first_order_with_its_whole_gradient(quickly):
    target = np.ones((1, 2, 10), np.float32)
    value, gradient = quickly(jax.value_and_grad(PermutationInvariant(L1())))(
        jnp.asarray(2 * target), jnp.asarray(target)
    )
    assert float(value) == 1
    np.testing.assert_allclose(gradient, 1 / 20)


def test_separation_of_other_shapes_is_refused():
    loss = PermutationInvariant(L1())
    with pytest.raises(ValueError, match=r"\[batch, sources, time\]; got \(2, 100\)"):
        loss(jnp.zeros((2, 100)), jnp.zeros((2, 100)))
    with pytest.raises(ValueError, match="of 6 at most; got 7"):
        loss(jnp.zeros((1, 7, 10)), jnp.zeros((1, 7, 10)))
