"""Exists to name every array in CAR-FAC: its discrete structure, coefficients and state.

Letters in shapes: B clips, E ears, C channels (base to apex), S AGC stages (fast to slow), K fibre
classes. Every array of one model has one float dtype, float32 or float64; `phase` is int32.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import flax.struct
from jaxtyping import Array, Float, Int

if TYPE_CHECKING:
    PerChannel = Float[Array, "ears channels"]
    PerClass = Float[Array, "ears channels classes"]
    PerStage = Float[Array, "stages ears"]
    PerEar = Float[Array, " ears"]
    Field = Float[Array, "batch ears channels"]
    Stages = Float[Array, "batch stages ears channels"]
    Fibres = Float[Array, "batch ears channels classes"]
    Past = Float[Array, "batch past ears"]
    Count = Int[Array, ""]
else:
    # Under `jax.tree.map` a field may hold a shape or a mask: nothing is checked at run time.
    PerChannel = PerClass = PerStage = PerEar = Field = Stages = Fibres = Past = Count = Any

IHC_STYLES = ("just_hwr", "one_cap", "two_cap", "two_cap_with_syn")
OUTPUTS = ("nap", "bm", "ohc", "agc", "receptor_potential", "firings")


@dataclasses.dataclass(frozen=True)
class Structure:
    """What is discrete about a model; fixed before anything is traced, and hashable.

    Attributes:
      sample_rate_hz: samples per second.
      n_ears: E.
      n_channels: C.
      ihc: one of `IHC_STYLES`.
      use_delay_buffer: each stage hears its neighbour's output of one sample ago.
      open_loop: the AGC runs, but does not change the cochlea.
      linear_car: the outer hair cells do not feel velocity.
      decimations: per AGC stage, how many updates of the stage before make one of this; S long.
      fir_taps: per AGC stage, 3 or 5 taps of the smoother over channels.
      fir_iterations: per AGC stage, how many times the smoother is applied at each update.
      n_classes: K, 0 without a synapse.
    """

    sample_rate_hz: float
    n_ears: int
    n_channels: int
    ihc: str
    use_delay_buffer: bool
    open_loop: bool
    linear_car: bool
    decimations: tuple[int, ...]
    fir_taps: tuple[int, ...]
    fir_iterations: tuple[int, ...]
    n_classes: int

    @property
    def n_stages(self) -> int:
        """S, the number of AGC stages."""
        return len(self.decimations)

    @property
    def block_samples(self) -> int:
        """Samples between two updates of the fastest AGC stage (8 where there is no AGC)."""
        return self.decimations[0] if self.decimations else 8

    @property
    def period_samples(self) -> int:
        """Samples after which the pattern of AGC updates repeats; `phase` counts modulo this."""
        return math.prod(self.decimations) if self.decimations else 1


@flax.struct.dataclass
class CarCoefficients:
    """The cascade.

    One stage, with z = (z1, z2) its state, x its input and y its output:

        u = relative undamping held by the AGC, already scaled: `undamping` in the state
        d = damping - u * nlf(z2 - z2_before),  nlf(v) = 1 / (1 + (v * scale + offset)^2)
        rotated = z - (one_minus_cos * z + sin * (z2, -z1))
        z <- rotated - d * rotated;   z1 <- z1 + x
        y = gain * (x + zero * z2)                          (x is y of the stage before)
        bm = y - ac;   ac <- ac + ac_rate * bm

    `1 - cos` and `1 - r` are kept instead of cos and r because in float32 at 96 kHz the rounding of
    a number near one would move the damping of the slow channels by parts in a thousand.

    Every field is `[E, C]`.

    Attributes:
      one_minus_cos: 1 - cos(pole angle).
      sin: sin(pole angle).
      damping: 1 - r where the pole radius r is smallest (no undamping).
      undamping_range: how much of it healthy, unloaded outer hair cells take away.
      zero: height of the zero above the pole, times sin.
      gain_quadratic, gain_linear, gain_constant: stage gain that keeps unity at DC, as a quadratic
        function of relative undamping in 0 to 1.
      gain_healthy: the exact stage gain at undamping 1, with which a run starts.
      velocity_scale, velocity_offset: of the outer hair cell non-linearity.
      ac_rate: of the high-pass that couples BM motion to the inner hair cells.
      ohc_health: 0 (none left) to 1 (healthy); multiplies relative undamping.
    """

    one_minus_cos: PerChannel
    sin: PerChannel
    damping: PerChannel
    undamping_range: PerChannel
    zero: PerChannel
    gain_quadratic: PerChannel
    gain_linear: PerChannel
    gain_constant: PerChannel
    gain_healthy: PerChannel
    velocity_scale: PerChannel
    velocity_offset: PerChannel
    ac_rate: PerChannel
    ohc_health: PerChannel


@flax.struct.dataclass
class IhcCoefficients:
    """Inner hair cells; `[E, C]` each, None where the style has no use for it.

    two_cap: with g(x) the conductance,
        current = g(bm) * cap1;    cap1 <- cap1 - current * out1_rate + (1 - cap1) * in1_rate
        release = (1 - cap1) * cap2 (new cap1);
        cap2 <- cap2 - release * out2_rate + (1 - cap2) * in2_rate
        lpf1 <- lpf1 + lpf_rate * (release * output_gain - lpf1);    nap = lpf1 - rest_output
        receptor_potential = rest_cap1 - cap1
    one_cap: release = g(bm) * cap1; cap1 as above; the low-pass runs twice (lpf1, lpf2).
    just_hwr has no coefficients: nap = min(2, max(0, bm)).

    Attributes:
      lpf_rate, out1_rate, in1_rate, output_gain, rest_output, rest_cap1: one_cap and both two_caps.
      out2_rate, in2_rate, rest_cap2: both two_caps.
    """

    lpf_rate: PerChannel | None = None
    out1_rate: PerChannel | None = None
    in1_rate: PerChannel | None = None
    out2_rate: PerChannel | None = None
    in2_rate: PerChannel | None = None
    output_gain: PerChannel | None = None
    rest_output: PerChannel | None = None
    rest_cap1: PerChannel | None = None
    rest_cap2: PerChannel | None = None


@flax.struct.dataclass
class SynapseCoefficients:
    """The synapse of `two_cap_with_syn`.

    Per fibre class:

        s = sigmoid((receptor_potential - v_half) / v_width);    r = (1 - reservoir) * s
        lpf <- lpf + lpf_rate * (output_gain * r - lpf);    firings = n_fibers * lpf (new lpf)
        reservoir <- reservoir + reservoir_rate * (feedback_gain * r - reservoir)
        nap = sum over classes of agc_weights * firings - rest_output

    Attributes:
      n_fibers, v_half, rest_probability, rest_reservoir, agc_weights: `[E, C, K]`.
      v_width, feedback_gain, output_gain, reservoir_rate, lpf_rate, rest_output: `[E, C]`.
    """

    n_fibers: PerClass
    v_half: PerClass
    rest_probability: PerClass
    rest_reservoir: PerClass
    agc_weights: PerClass
    v_width: PerChannel
    feedback_gain: PerChannel
    output_gain: PerChannel
    reservoir_rate: PerChannel
    lpf_rate: PerChannel
    rest_output: PerChannel


@flax.struct.dataclass
class AgcCoefficients:
    """The automatic gain control.

    A stage that updates, slow stages first (S-1 to 0):

        x = mean of its input over its decimation + stage_gain * memory of the next slower stage
        memory <- memory + epsilon * (x - memory)
        fir_iterations times: memory <- low * memory[c-1] + middle * memory[c] + high * memory[c+1]
          (5 taps: low * (memory[c-1] + memory[c-2]) + middle * memory[c] + high * (...))
    Past the ends, as google/carfac has it: c-1 reads channel 0 at c = 0, and c+1 reads C-1 at C-1;
    c-2 reads channels 0, 1 at c = 0, 1, and c+2 reads channels C-1, C-2 at c = C-2, C-1.
    Then, for several ears, in each stage that updated: memory <- memory + mix * (mean - memory).
    Stage 0 hears detect_scale * nap.

    Attributes:
      epsilon, fir_low, fir_middle, fir_high, mix: `[S, E]`. For 5 taps `fir_low` and `fir_high` are
        the weight of each of the two taps on that side.
      stage_gain, detect_scale: `[E]`.
    """

    epsilon: PerStage
    fir_low: PerStage
    fir_middle: PerStage
    fir_high: PerStage
    mix: PerStage
    stage_gain: PerEar
    detect_scale: PerEar


@flax.struct.dataclass
class Coefficients:
    """Everything a kernel needs besides `Structure`, the state and the audio."""

    car: CarCoefficients
    ihc: IhcCoefficients
    agc: AgcCoefficients
    synapse: SynapseCoefficients | None = None


@flax.struct.dataclass
class State:
    """Filter memories after a whole number of samples; `[B, E, C]` where not said otherwise.

    At each sample `undamping += undamping_step` and `gain += gain_step` come first. When stage 0 of
    the AGC has updated (and the loop is closed), with u = (1 - memory[stage 0]) * ohc_health:
        undamping_step = (undamping_range * u - undamping) / decimations[0]
        gain_step = (quadratic gain at u - gain) / decimations[0]
    With the loop open both steps are taken as zero.

    Attributes:
      z1, z2, z2_before: resonators; `z2_before` is z2 one sample ago.
      undamping, undamping_step, gain, gain_step: what the AGC holds and how it moves each sample.
      ac: of the high-pass.
      stage_out: each stage's last output, with a delay buffer only (else None).
      cap1, lpf1: inner hair cells (None for just_hwr).
      cap2: two-cap styles only. lpf2: one_cap only.
      reservoir, fibre_lpf: `[B, E, C, K]`, with a synapse only.
      agc_memory, agc_sum: `[B, S, E, C]`; `agc_sum` is a stage's input summed since it
        last updated.
      phase: int32 scalar, samples so far modulo `Structure.period_samples`; a stage s updates after
        the sample that makes it a multiple of decimations[0] * ... * decimations[s].
      past_audio: `[B, taps - 1, E]`, with an ear filter only: what it still hears. Kernels do not
        see it, for the filter comes before them.
    """

    z1: Field
    z2: Field
    z2_before: Field
    undamping: Field
    undamping_step: Field
    gain: Field
    gain_step: Field
    ac: Field
    agc_memory: Stages
    agc_sum: Stages
    phase: Count
    stage_out: Field | None = None
    cap1: Field | None = None
    cap2: Field | None = None
    lpf1: Field | None = None
    lpf2: Field | None = None
    reservoir: Fibres | None = None
    fibre_lpf: Fibres | None = None
    past_audio: Past | None = None
