// Exists to move the basilar membrane: one resonator for one sample, and the transpose of its
// derivative. `structures.py` has the equations.
#pragma once

#include "problem.h"
#include "simd.h"

namespace carfac {
namespace HYBRID_ISA {

// Coefficients, or sums towards their gradients; the order of rows is that of `packing.py`.
template <class E>
struct CarCoefficients {
  E one_minus_cos, sin, damping, undamping_range, zero;
  E gain_quadratic, gain_linear, gain_constant;
  E velocity_scale, velocity_offset, ac_rate, ohc_health;
};
static_assert(sizeof(CarCoefficients<float>) == kCarRows * sizeof(float), "rows");

// State, or its cotangent.
template <class E>
struct CarState {
  E z1, z2, z2_before, undamping, undamping_step, gain, gain_step, ac, stage_out;
};
static_assert(sizeof(CarState<float>) == kCarStateRows * sizeof(float), "rows");

// What the resonator does before it knows its input.
template <class V>
struct Turn {
  V turned1, turned2;  // rotated
  V damping;
  V v, w, active;  // velocity, scaled and offset; what it leaves of the undamping
  V z1, z2;        // rotated and damped; the input is still to be added to z1
};

// `active` is 1 / (1 + w^2), or 1 where outer hair cells do not feel velocity.
template <class V, class K>
HYBRID_INLINE Turn<V> turn_active(const K& k, V z1, V z2, V z2_before, V undamping, V active) {
  Turn<V> t;
  t.v = z2 - z2_before;
  t.w = fma(t.v, k.velocity_scale, k.velocity_offset);
  t.active = active;
  t.damping = fnma(undamping, t.active, k.damping);
  t.turned1 = fnma(k.sin, z2, fnma(k.one_minus_cos, z1, z1));
  t.turned2 = fma(k.sin, z1, fnma(k.one_minus_cos, z2, z2));
  t.z1 = fnma(t.damping, t.turned1, t.turned1);
  t.z2 = fnma(t.damping, t.turned2, t.turned2);
  return t;
}

template <class V, class K>
HYBRID_INLINE Turn<V> turn(const K& k, V z1, V z2, V z2_before, V undamping, bool linear) {
  const V w = fma(z2 - z2_before, k.velocity_scale, k.velocity_offset), one = splat<V>(1);
  return turn_active(k, z1, z2, z2_before, undamping, linear ? one : one / fma(w, w, one));
}

// Transpose of `turn` and of the stage's output. On entry `a` is the cotangent of the state after
// the sample, on return of the state before it, but for `ac`, which is the high-pass's business.
//   turned: as `turn` gave it; z1, z2: before the sample; x: the stage's input; undamping, gain: in
//   force; y_bar: of the output; x_bar: what `input_bar` gave.
template <class V, class K, class G>
HYBRID_INLINE void turn_back(const K& k, const Turn<V>& t, V z1, V z2, V x, V undamping, V gain,
                             V y_bar, CarState<V>& a, G& g, bool linear) {
  // y = gain (x + zero z2')
  a.gain = fma(y_bar, fma(k.zero, t.z2, x), a.gain);
  const V s = y_bar * gain;
  g.zero = fma(s, t.z2, g.zero);
  const V z2_bar = fma(s, k.zero, a.z2);
  const V z1_bar = a.z1;
  // z' = turned - damping turned
  const V less_bar = fma(z1_bar, t.turned1, z2_bar * t.turned2);  // of minus the damping
  const V turned1_bar = fnma(t.damping, z1_bar, z1_bar);
  const V turned2_bar = fnma(t.damping, z2_bar, z2_bar);
  // turned = z - (one_minus_cos z + sin (z2, -z1))
  g.one_minus_cos = fnma(turned1_bar, z1, fnma(turned2_bar, z2, g.one_minus_cos));
  g.sin = fnma(turned1_bar, z2, fma(turned2_bar, z1, g.sin));
  a.z1 = fma(k.sin, turned2_bar, fnma(k.one_minus_cos, turned1_bar, turned1_bar));
  V before_bar = fnma(k.sin, turned1_bar, fnma(k.one_minus_cos, turned2_bar, turned2_bar));
  // damping = k.damping - undamping active
  g.damping -= less_bar;
  a.undamping = fma(t.active, less_bar, a.undamping);
  before_bar += a.z2_before;
  if (!linear) {
    // active = 1 / (1 + w^2), w = scale v + offset, v = z2 - z2_before
    // The slopes first, which wait for nothing that comes back from later samples.
    const V slope = undamping * ((t.active * t.active) * (t.w + t.w));
    const V slope_v = slope * k.velocity_scale;
    const V fall_bar = less_bar * slope;  // of minus w
    g.velocity_scale = fnma(fall_bar, t.v, g.velocity_scale);
    g.velocity_offset -= fall_bar;
    a.z2_before = less_bar * slope_v;
    before_bar = fnma(less_bar, slope_v, before_bar);
  } else {
    a.z2_before = splat<V>(0);
  }
  a.z2 = before_bar;
  // Both have moved by their step before the sample.
  a.undamping_step += a.undamping;
  a.gain_step += a.gain;
}

}  // namespace HYBRID_ISA
}  // namespace carfac
