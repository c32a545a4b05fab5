// Exists to detect motion: inner hair cells of each style for one sample, and the transposes of
// their derivatives. `structures.py` has the equations.
#pragma once

#include "problem.h"
#include "simd.h"

namespace carfac {
namespace HYBRID_ISA {

template <class E, int kStyle>
struct IhcCoefficients {};
template <class E>
struct IhcCoefficients<E, kOneCap> {
  E lpf_rate, out1_rate, in1_rate, output_gain, rest_output;
};
template <class E>
struct IhcCoefficients<E, kTwoCap> {
  E lpf_rate, out1_rate, in1_rate, out2_rate, in2_rate, output_gain, rest_output, rest_cap1;
};
template <class E>
struct IhcCoefficients<E, kTwoCapWithSyn> : IhcCoefficients<E, kTwoCap> {};

template <class E, int kStyle>
struct IhcState {};
template <class E>
struct IhcState<E, kOneCap> {
  E cap1, lpf1, lpf2;
};
template <class E>
struct IhcState<E, kTwoCap> {
  E cap1, cap2, lpf1;
};
template <class E>
struct IhcState<E, kTwoCapWithSyn> : IhcState<E, kTwoCap> {};

constexpr int64_t ihc_rows(int64_t style) {
  return style == kJustHwr ? 0 : style == kOneCap ? 5 : 8;
}
constexpr int64_t ihc_state_rows(int64_t style) { return style == kJustHwr ? 0 : 3; }

// Conductance and its slope, from one division.
template <class V>
struct Conductance {
  V value, slope;
};
template <class V>
HYBRID_INLINE Conductance<V> conductance(V x) {
  typedef ElementOf<V> T;
  const V one = splat<V>(1);
  const V z = not_below_zero(x + splat<V>(T(0.175)));
  const V square = z * z;
  const V inverse = one / fma(square, z + one, splat<V>(T(0.1)));
  const V slope = (square * (square + splat<V>(T(0.3)))) * (inverse * inverse);
  return {(square * z) * inverse, slope};
}

// A capacitor after a sample: c - opening out c + (1 - c) in. In this order a sample waits little for
// the sample before it, and at rest what is added vanishes to the last bit but one.
template <class V>
HYBRID_INLINE V recharged(V c, V opening, V out, V in) {
  return c + fnma(c, fma(opening, out, in), in);
}

// A low-pass after a sample. Its drive must vanish at rest: what is left of it there would be summed
// up in the gradient of the rate.
template <class V>
HYBRID_INLINE V smoothed(V low, V rate, V gain, V x) {
  return fma(rate, fms(gain, x, low), low);
}

template <class V>
struct IhcOutput {
  V nap, potential;
};

// just_hwr
template <class V, class K>
HYBRID_INLINE IhcOutput<V> ihc_step(const K&, IhcState<V, kJustHwr>&, V bm, const Conductance<V>&) {
  const V zero = splat<V>(0), two = splat<V>(2);
  const V above = bm > zero ? bm : zero;
  return {above < two ? above : two, zero};
}

template <class V, class K, class G>
HYBRID_INLINE V ihc_back(const K&, const IhcState<V, kJustHwr>&, V bm, const Conductance<V>&,
                         V nap_bar, V, G&, IhcState<V, kJustHwr>&, V& nap) {
  const V zero = splat<V>(0), two = splat<V>(2), half = splat<V>(0.5f);
  const V above = bm > zero ? bm : zero;
  nap = above < two ? above : two;
  // At the corners JAX takes half of the gradient; so do we.
  V weight = bm > zero ? splat<V>(1) : zero;
  weight = bm == zero ? half : weight;
  weight = bm == two ? half : weight;
  weight = bm > two ? zero : weight;
  return nap_bar * weight;
}

// one_cap
template <class V, class K>
HYBRID_INLINE IhcOutput<V> ihc_step(const K& k, IhcState<V, kOneCap>& s, V,
                                    const Conductance<V>& opening) {
  const V current = opening.value * s.cap1;
  s.cap1 = recharged(s.cap1, opening.value, k.out1_rate, k.in1_rate);
  s.lpf1 = smoothed(s.lpf1, k.lpf_rate, k.output_gain, current);
  s.lpf2 = fma(k.lpf_rate, s.lpf1 - s.lpf2, s.lpf2);
  return {s.lpf2 - k.rest_output, splat<V>(0)};
}

template <class V, class K, class G>
HYBRID_INLINE V ihc_back(const K& k, const IhcState<V, kOneCap>& s, V,
                         const Conductance<V>& opening, V nap_bar, V, G& g,
                         IhcState<V, kOneCap>& a, V& nap) {
  const V current = opening.value * s.cap1;
  const V drive1 = fms(current, k.output_gain, s.lpf1);
  const V lpf1 = fma(k.lpf_rate, drive1, s.lpf1);
  const V drive2 = lpf1 - s.lpf2;
  nap = fma(k.lpf_rate, drive2, s.lpf2) - k.rest_output;
  g.rest_output -= nap_bar;
  const V lpf2_bar = a.lpf2 + nap_bar;
  const V drive2_bar = lpf2_bar * k.lpf_rate;
  a.lpf2 = lpf2_bar - drive2_bar;
  const V lpf1_bar = a.lpf1 + drive2_bar;
  g.lpf_rate += fma(lpf2_bar, drive2, lpf1_bar * drive1);
  const V drive1_bar = lpf1_bar * k.lpf_rate;
  a.lpf1 = lpf1_bar - drive1_bar;
  g.output_gain = fma(drive1_bar, current, g.output_gain);
  g.out1_rate = fnma(a.cap1, current, g.out1_rate);
  g.in1_rate = fma(a.cap1, splat<V>(1) - s.cap1, g.in1_rate);
  const V current_bar = fms(drive1_bar, k.output_gain, a.cap1 * k.out1_rate);
  a.cap1 = fma(current_bar, opening.value, fnma(k.in1_rate, a.cap1, a.cap1));
  return (current_bar * s.cap1) * opening.slope;
}

// two_cap, and the cells ahead of a synapse
template <class V, class K, int kStyle,
          std::enable_if_t<kStyle == kTwoCap || kStyle == kTwoCapWithSyn, int> = 0>
HYBRID_INLINE IhcOutput<V> ihc_step(const K& k, IhcState<V, kStyle>& s, V,
                                    const Conductance<V>& opening) {
  s.cap1 = recharged(s.cap1, opening.value, k.out1_rate, k.in1_rate);
  const V emptied = splat<V>(1) - s.cap1, release = emptied * s.cap2;
  s.cap2 = recharged(s.cap2, emptied, k.out2_rate, k.in2_rate);
  s.lpf1 = smoothed(s.lpf1, k.lpf_rate, k.output_gain, release);
  return {s.lpf1 - k.rest_output, k.rest_cap1 - s.cap1};
}

// Transpose of a step.
//   s: before the sample; opening: that of bm; a: cotangent of the state after it, on return before it; nap: recomputed,
//   for the coefficients of what listens to it. Returns the cotangent of bm.
template <class V, class K, class G, int kStyle,
          std::enable_if_t<kStyle == kTwoCap || kStyle == kTwoCapWithSyn, int> = 0>
HYBRID_INLINE V ihc_back(const K& k, const IhcState<V, kStyle>& s, V,
                         const Conductance<V>& opening, V nap_bar, V potential_bar, G& g,
                         IhcState<V, kStyle>& a, V& nap) {
  const V one = splat<V>(1);
  const V current = opening.value * s.cap1;
  const V emptied = one - recharged(s.cap1, opening.value, k.out1_rate, k.in1_rate);
  const V release = emptied * s.cap2;
  const V drive = fms(release, k.output_gain, s.lpf1);
  nap = fma(k.lpf_rate, drive, s.lpf1) - k.rest_output;

  g.rest_output -= nap_bar;
  const V lpf_bar = a.lpf1 + nap_bar;
  g.lpf_rate = fma(lpf_bar, drive, g.lpf_rate);
  const V drive_bar = lpf_bar * k.lpf_rate;
  a.lpf1 = lpf_bar - drive_bar;
  g.output_gain = fma(drive_bar, release, g.output_gain);
  g.out2_rate = fnma(a.cap2, release, g.out2_rate);
  g.in2_rate = fma(a.cap2, one - s.cap2, g.in2_rate);
  const V release_bar = fms(drive_bar, k.output_gain, a.cap2 * k.out2_rate);
  a.cap2 = fma(release_bar, emptied, fnma(k.in2_rate, a.cap2, a.cap2));
  g.rest_cap1 += potential_bar;
  const V cap1_bar = fnma(release_bar, s.cap2, a.cap1) - potential_bar;
  g.out1_rate = fnma(cap1_bar, current, g.out1_rate);
  g.in1_rate = fma(cap1_bar, one - s.cap1, g.in1_rate);
  const V current_bar = -(cap1_bar * k.out1_rate);
  a.cap1 = fma(current_bar, opening.value, fnma(k.in1_rate, cap1_bar, cap1_bar));
  return (current_bar * s.cap1) * opening.slope;
}

}  // namespace HYBRID_ISA
}  // namespace carfac
