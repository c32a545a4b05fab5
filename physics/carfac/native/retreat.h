// Exists to transpose `advance.h`: from the last sample between two updates of the gain control
// to the first, cotangents of outputs and state become those of inputs, state and coefficients.
#pragma once

#include "advance.h"

namespace carfac {
namespace HYBRID_ISA {

// Sums towards the gradients of one position's coefficients.
template <class V, int kStyle>
struct Sums : Coefficients<V, kStyle> {
  V detect_scale;
};

// Cotangents of the outputs of a block and ear, `[n]` tiles each; nap's is always there.
template <class V>
struct OutputBars {
  const V* nap = nullptr;
  const V* bm = nullptr;
  const V* ohc = nullptr;
  const V* agc = nullptr;
  const V* potential = nullptr;
  const V* firings = nullptr;  // [n, K], tiles
};

// What changes once in a block: undamping and gain before its first sample, and their steps.
template <class V>
struct Glide {
  V undamping, undamping_step, gain, gain_step;
};

template <class L, int kStyle>
struct Retreat {
  typedef Work<L, kStyle> W;
  typedef typename L::T T;
  typedef typename L::V V;
  typedef Coefficients<V, kStyle> Wide;
  static constexpr int kLanes = L::kLanes;
  static constexpr int64_t kIhcRows = W::kCellRows - kCarStateRows;
  static constexpr int64_t kSumRows = sizeof(Sums<float, kStyle>) / sizeof(float);

  W& w;               // as forward; of the state only stage 0 of the gain control is looked at
  W& bar;             // cotangents of the state
  Sums<V, kStyle>* sums;              // [E, positions]
  SynapseCoefficients<V>* synapse;    // [E, positions]
  ClassCoefficients<V>* of_class;     // [E, positions, K]
  T *gains, *inputs, *outs;           // of the ripple, when channels are in the lanes

  Retreat(W& work, W& bars, Arena& arena) : w(work), bar(bars) {
    const int64_t n = L::kClips ? 0 : w.size + 2 * kLanes;
    gains = arena.take<T>(n);
    inputs = arena.take<T>(n);
    outs = arena.take<T>(n);
  }

  // One block of one ear.
  //   glide: of this ear, [positions].
  //   tape: of the block's first sample and this ear; samples are `tape_step` vectors apart, and
  //   there is one before the first.
  //   x_bar: on return the cotangent of the audio, [n] by clips in the lanes; room for n vectors.
  void block(int64_t ear, int64_t n, const Glide<V>* glide, const V* tape,
             int64_t tape_step, const OutputBars<V>& outputs, T* x_bar) {
    if constexpr (L::kClips) {
      by_clip(ear, n, glide, tape, tape_step, outputs, x_bar);
    } else {
      by_channel(ear, n, glide, tape, tape_step, outputs, x_bar);
    }
  }

 private:
  // Everything about one sample of one position.
  struct Here {
    const V* tape;
    V undamping, gain, z2_before;
    int64_t tile;  // of this sample, in `OutputBars`
    int64_t position;
  };

  HYBRID_INLINE Here here(int64_t t, int64_t p, const Glide<V>& glide, const V* tape,
                          int64_t tape_step) const {
    const V* const entry = tape + t * tape_step + p * Advance<L, kStyle>::tape_rows(w);
    const V steps = splat<V>(T(t + 1));
    return {entry,
            fma(steps, glide.undamping_step, glide.undamping),
            fma(steps, glide.gain_step, glide.gain),
            (entry - tape_step)[kTapeZ2],
            t * w.positions + p,
            p};
  }

  // From nap back to the stage's output, before what the next stage has to say about it.
  HYBRID_INLINE V output_bar(const Wide& k, const Here& h, int64_t at, V sum_bar, V detect,
                             const OutputBars<V>& outputs, Cell<V, kStyle>& a,
                             Sums<V, kStyle>& g) {
    V nap_bar = fma(detect, sum_bar, outputs.nap[h.tile]);
    V potential_bar = splat<V>(0);
    if (outputs.potential) potential_bar = outputs.potential[h.tile];
    const IhcState<V, kStyle>& ihc = *reinterpret_cast<const IhcState<V, kStyle>*>(h.tape + kTapeIhc);
    const V bm = h.tape[kTapeBm];
    V nap;
    V bm_bar;
    if constexpr (W::kSynapse) {
      IhcState<V, kStyle> after = ihc;
      const V potential = ihc_step(k, after, bm).potential;
      const V* firings = outputs.firings;
      if (firings) firings += (h.tile - h.position) * w.classes + h.position;
      V synapse_nap;
      potential_bar += synapse_back<V>(
          w.synapse[at], w.of_class + at * w.classes, w.classes, h.tape + kTapeIhc + kIhcRows,
          potential, nap_bar, firings, w.positions, synapse[at], of_class + at * w.classes,
          bar.fibres + at * 2 * w.classes, synapse_nap);
      bm_bar = ihc_back(k, ihc, bm, splat<V>(0), potential_bar, g,
                        static_cast<IhcState<V, kStyle>&>(a), nap);
      nap = synapse_nap;
    } else {
      bm_bar = ihc_back(k, ihc, bm, nap_bar, potential_bar, g,
                        static_cast<IhcState<V, kStyle>&>(a), nap);
    }
    g.detect_scale = fma(sum_bar, nap, g.detect_scale);
    if (outputs.bm) bm_bar += outputs.bm[h.tile];
    // bm = y - ac; ac <- ac + ac_rate bm
    bm_bar = fma(a.ac, k.ac_rate, bm_bar);
    g.ac_rate = fma(a.ac, bm, g.ac_rate);
    a.ac -= bm_bar;
    return bm_bar;
  }

  // From the stage's output back to the state before the sample.
  HYBRID_INLINE void state_bar(const Wide& k, const Here& h, V y_bar,
                               const OutputBars<V>& outputs, Cell<V, kStyle>& a,
                               Sums<V, kStyle>& g) {
    const bool linear = w.shape.linear;
    const V z1 = h.tape[kTapeZ1], z2 = h.tape[kTapeZ2];
    const Turn<V> t = turn(k, z1, z2, h.z2_before, h.undamping, linear);
    if (outputs.agc) a.undamping += outputs.agc[h.tile];
    turn_back(k, t, z1, z2, h.tape[kTapeInput], h.undamping, h.gain, y_bar,
              static_cast<CarState<V>&>(a), g, linear);
    if (outputs.ohc) a.z2 += outputs.ohc[h.tile];
  }

  void by_clip(int64_t ear, int64_t n, const Glide<V>* glide, const V* tape,
               int64_t tape_step, const OutputBars<V>& outputs, T* x_bar) {
    const V detect = splat<V>(w.detect_scale(ear));
    const bool delay = w.shape.delay;
    V* const xs = reinterpret_cast<V*>(x_bar);
    for (int64_t t = 0; t < n; ++t) xs[t] = splat<V>(0);
    for (int64_t p = w.positions - 1; p >= 0; --p) {
      const int64_t at = ear * w.positions + p;
      const Wide k = widen<V>(w.car_ihc[at]);
      Cell<V, kStyle> a = bar.cells[at];
      Sums<V, kStyle> g = sums[at];
      const Glide<V> steps = glide[p];
      const V sum_bar = w.shape.stages ? load<V>(bar.sum(0, ear) + p * kLanes) : splat<V>(0);
      for (int64_t t = n - 1; t >= 0; --t) {
        const Here h = here(t, p, steps, tape, tape_step);
        V y_bar = output_bar(k, h, at, sum_bar, detect, outputs, a, g);
        if (delay) {
          // The next stage hears this one a sample later.
          y_bar += a.stage_out;
          a.stage_out = xs[t];
        } else {
          y_bar += xs[t];
        }
        xs[t] = fma(h.gain, y_bar, a.z1);
        state_bar(k, h, y_bar, outputs, a, g);
      }
      bar.cells[at] = a;
      sums[at] = g;
    }
  }

  void by_channel(int64_t ear, int64_t n, const Glide<V>* glide, const V* tape,
                  int64_t tape_step, const OutputBars<V>& outputs, T* x_bar) {
    const V detect = splat<V>(w.detect_scale(ear));
    const int64_t at = ear * w.positions, channels = w.shape.channels;
    for (int64_t t = n - 1; t >= 0; --t) {
      for (int64_t p = 0; p < w.positions; ++p) {
        const Here h = here(t, p, glide[p], tape, tape_step);
        Cell<V, kStyle>& a = bar.cells[at + p];
        const V sum_bar = w.shape.stages ? load<V>(bar.sum(0, ear) + p * kLanes) : splat<V>(0);
        V y_bar = output_bar(w.car_ihc[at + p], h, at + p, sum_bar, detect, outputs, a,
                             sums[at + p]);
        if (w.shape.delay) y_bar += a.stage_out;
        store(outs + p * kLanes, y_bar);
        store(gains + p * kLanes, h.gain);
        store(inputs + p * kLanes, a.z1);
      }
      // The ripple, from apex to base: what a stage's input adds to the output before it.
      if (w.shape.delay) {
        for (int64_t c = 0; c < channels; ++c) inputs[c] = fma(gains[c], outs[c], inputs[c]);
      } else {
        T x = 0;
        for (int64_t c = channels - 1; c >= 0; --c) {
          const T y = outs[c] + x;
          outs[c] = y;
          x = fma(gains[c], y, inputs[c]);
          inputs[c] = x;
        }
      }
      x_bar[t] = inputs[0];
      if (w.shape.delay) {
        inputs[channels] = 0;
        for (int64_t p = 0; p < w.positions; ++p) {
          bar.cells[at + p].stage_out = load<V>(inputs + p * kLanes + 1);
        }
      }
      for (int64_t p = 0; p < w.positions; ++p) {
        const Here h = here(t, p, glide[p], tape, tape_step);
        state_bar(w.car_ihc[at + p], h, load<V>(outs + p * kLanes), outputs, bar.cells[at + p],
                  sums[at + p]);
      }
    }
  }
};

}  // namespace HYBRID_ISA
}  // namespace carfac
