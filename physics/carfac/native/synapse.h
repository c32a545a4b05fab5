// Exists to fire: the synapses of one position, all fibre classes, for one sample, and the
// transpose of the derivative. `structures.py` has the equations.
#pragma once

#include "problem.h"
#include "simd.h"

namespace carfac {
namespace HYBRID_ISA {

template <class E>
struct SynapseCoefficients {
  E v_width, feedback_gain, output_gain, reservoir_rate, lpf_rate, rest_output;
};
static_assert(sizeof(SynapseCoefficients<float>) == kSynapseRows * sizeof(float), "rows");

template <class E>
struct ClassCoefficients {
  E n_fibers, v_half, agc_weights;
};
static_assert(sizeof(ClassCoefficients<float>) == kSynapseClassRows * sizeof(float), "rows");

// Widens coefficients: a scalar that all clips share to all lanes; a vector stays what it is.
template <class V>
HYBRID_INLINE V widen(ElementOf<V> x) {
  return splat<V>(x);
}
template <class V>
HYBRID_INLINE V widen(V x) {
  return x;
}

// One class for one sample, as forward and backward both need it.
template <class V>
struct Release {
  V opening, left, release;
};
template <class V>
HYBRID_INLINE Release<V> release_of(V potential, V v_half, V v_width, V reservoir) {
  Release<V> r;
  r.opening = sigmoid<V>((potential - v_half) / v_width);
  r.left = splat<V>(1) - reservoir;
  r.release = r.left * r.opening;
  return r;
}

// Steps `memory` (reservoirs of all classes, then their low-passed output); returns nap.
//   firings: one tile per class, `stride` vectors apart, or null.
template <class V, class E>
HYBRID_INLINE V synapse_step(const SynapseCoefficients<E>& narrow, const ClassCoefficients<E>* of,
                             int64_t classes, V* memory, V potential, V* firings, int64_t stride) {
  const V v_width = widen<V>(narrow.v_width), feedback = widen<V>(narrow.feedback_gain);
  const V output = widen<V>(narrow.output_gain), lpf_rate = widen<V>(narrow.lpf_rate);
  const V reservoir_rate = widen<V>(narrow.reservoir_rate);
  V nap = -widen<V>(narrow.rest_output);
  for (int64_t c = 0; c < classes; ++c) {
    V &reservoir = memory[c], &lpf = memory[classes + c];
    const V release =
        release_of<V>(potential, widen<V>(of[c].v_half), v_width, reservoir).release;
    lpf = fma(lpf_rate, fms(output, release, lpf), lpf);
    reservoir = fma(reservoir_rate, fms(feedback, release, reservoir), reservoir);
    const V fired = widen<V>(of[c].n_fibers) * lpf;
    nap = fma(fired, widen<V>(of[c].agc_weights), nap);
    if (firings) firings[c * stride] = fired;
  }
  return nap;
}

// Transpose of `synapse_step`.
//   memory: before the sample; a: cotangent of the memory after it, on return before it;
//   firings_bar: as `firings`, or null; nap: recomputed. Returns the cotangent of the potential.
template <class V, class E>
HYBRID_INLINE V synapse_back(const SynapseCoefficients<E>& narrow, const ClassCoefficients<E>* of,
                             int64_t classes, const V* memory, V potential, V nap_bar,
                             const V* firings_bar, int64_t stride, SynapseCoefficients<V>& g,
                             ClassCoefficients<V>* g_of, V* a, V& nap) {
  const V v_width = widen<V>(narrow.v_width), feedback = widen<V>(narrow.feedback_gain);
  const V output = widen<V>(narrow.output_gain), lpf_rate = widen<V>(narrow.lpf_rate);
  const V reservoir_rate = widen<V>(narrow.reservoir_rate);
  nap = -widen<V>(narrow.rest_output);
  g.rest_output -= nap_bar;
  V potential_bar = splat<V>(0);
  for (int64_t c = 0; c < classes; ++c) {
    const V reservoir = memory[c], lpf = memory[classes + c];
    const V n_fibers = widen<V>(of[c].n_fibers), weight = widen<V>(of[c].agc_weights);
    const V v_half = widen<V>(of[c].v_half);
    const Release<V> r = release_of<V>(potential, v_half, v_width, reservoir);
    const V drive = fms(output, r.release, lpf), refill = fms(feedback, r.release, reservoir);
    const V lpf_after = fma(lpf_rate, drive, lpf);
    const V fired = n_fibers * lpf_after;
    nap = fma(fired, weight, nap);

    g_of[c].agc_weights = fma(nap_bar, fired, g_of[c].agc_weights);
    V fired_bar = nap_bar * weight;
    if (firings_bar) fired_bar += firings_bar[c * stride];
    g_of[c].n_fibers = fma(fired_bar, lpf_after, g_of[c].n_fibers);
    const V lpf_bar = fma(fired_bar, n_fibers, a[classes + c]), reservoir_bar = a[c];
    g.lpf_rate = fma(lpf_bar, drive, g.lpf_rate);
    g.reservoir_rate = fma(reservoir_bar, refill, g.reservoir_rate);
    const V drive_bar = lpf_bar * lpf_rate, refill_bar = reservoir_bar * reservoir_rate;
    g.output_gain = fma(drive_bar, r.release, g.output_gain);
    g.feedback_gain = fma(refill_bar, r.release, g.feedback_gain);
    const V release_bar = fma(drive_bar, output, refill_bar * feedback);
    a[classes + c] = lpf_bar - drive_bar;
    a[c] = (reservoir_bar - refill_bar) - release_bar * r.opening;
    const V opening_bar = release_bar * r.left;
    const V z_bar = (opening_bar * (r.opening * (splat<V>(1) - r.opening))) / v_width;
    g_of[c].v_half -= z_bar;
    g.v_width -= z_bar * ((potential - v_half) / v_width);
    potential_bar += z_bar;
  }
  return potential_bar;
}

}  // namespace HYBRID_ISA
}  // namespace carfac
