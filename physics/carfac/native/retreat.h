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
  // When channels are in the lanes: of the ripple, and [positions, kMaxBlock] of outputs.
  T *gains, *inputs, *outs;
  V* y_bars;

  Retreat(W& work, W& bars, Arena& arena) : w(work), bar(bars) {
    const int64_t n = L::kClips ? 0 : w.size + 2 * kLanes;
    gains = arena.take<T>(n);
    inputs = arena.take<T>(n);
    outs = arena.take<T>(n);
    y_bars = arena.take<V>(L::kClips ? 0 : w.positions * kMaxBlock);
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

  static int64_t rows(const W& w) { return Advance<L, kStyle>::tape_rows(w); }

 private:
  // From nap back to bm's part in it, for n samples of one position; leaves in y_bar, [n], the
  // cotangent of the stage's output but for what the next stage has to say about it.
  HYBRID_INLINE void detect_back(int64_t ear, int64_t p, int64_t n, const V* tape,
                                 int64_t tape_step, const OutputBars<V>& outputs, V* y_bar) {
    typedef IhcState<V, kStyle> State;
    const int64_t at = ear * w.positions + p;
    const auto k = widen<V>(w.car_ihc[at]);
    IhcCoefficients<V, kStyle> g;
    copy_each<V>(g, static_cast<const IhcCoefficients<V, kStyle>&>(sums[at]));
    V ac_rate = sums[at].ac_rate, detect = sums[at].detect_scale;
    State a;
    copy_each<V>(a, static_cast<const State&>(bar.cells[at]));
    V ac = bar.cells[at].ac;
    const V sum_bar = w.shape.stages ? load<V>(bar.sum(0, ear) + p * kLanes) : splat<V>(0);
    const V scale = splat<V>(w.detect_scale(ear));
    const V heard_bar = scale * sum_bar;
    const V* entry = tape + p * rows(w) + (n - 1) * tape_step;
    for (int64_t t = n - 1; t >= 0; --t, entry -= tape_step) {
      const int64_t tile = t * w.positions + p;
      V nap_bar = outputs.nap[tile] + heard_bar, potential_bar = splat<V>(0), nap;
      if (outputs.potential) potential_bar = outputs.potential[tile];
      const State& s = *reinterpret_cast<const State*>(entry + kTapeIhc);
      const V bm = entry[kTapeBm];
      const Conductance<V> opening{entry[kTapeOpening], entry[kTapeSlope]};
      if constexpr (W::kSynapse) {
        State after = s;
        const V potential = ihc_step(k, after, bm, opening).potential;
        const V* firings = outputs.firings;
        if (firings) firings += t * w.classes * w.positions + p;
        potential_bar += synapse_back<V>(
            w.synapse[at], w.of_class + at * w.classes, w.classes, entry + kTapeIhc + kIhcRows,
            potential, nap_bar, firings, w.positions, synapse[at], of_class + at * w.classes,
            bar.fibres + at * 2 * w.classes, nap);
        nap_bar = splat<V>(0);
      }
      V ihc_nap;
      V bm_bar = ihc_back(k, s, bm, opening, nap_bar, potential_bar, g, a, ihc_nap);
      if constexpr (!W::kSynapse) nap = ihc_nap;
      detect = fma(sum_bar, nap, detect);
      if (outputs.bm) bm_bar += outputs.bm[tile];
      // bm = y - ac; ac <- ac + ac_rate bm
      bm_bar = fma(ac, k.ac_rate, bm_bar);
      ac_rate = fma(ac, bm, ac_rate);
      ac -= bm_bar;
      y_bar[t] = bm_bar;
    }
    copy_each<V>(static_cast<IhcCoefficients<V, kStyle>&>(sums[at]), g);
    sums[at].ac_rate = ac_rate;
    sums[at].detect_scale = detect;
    copy_each<V>(static_cast<State&>(bar.cells[at]), a);
    bar.cells[at].ac = ac;
  }

  // What a stage needs of one sample; `entry` is of the tape.
  struct Moment {
    V undamping, gain, z1, z2, x;
    Turn<V> turn;
  };
  HYBRID_INLINE Moment moment(const CarCoefficients<V>& k, const Glide<V>& glide, int64_t t,
                              const V* entry, int64_t tape_step) const {
    Moment m;
    const V steps = splat<V>(T(t + 1));
    m.undamping = fma(steps, glide.undamping_step, glide.undamping);
    m.gain = fma(steps, glide.gain_step, glide.gain);
    m.z1 = entry[kTapeZ1];
    m.z2 = entry[kTapeZ2];
    m.x = entry[kTapeInput];
    m.turn = turn_active(k, m.z1, m.z2, (entry - tape_step)[kTapeZ2], m.undamping,
                         entry[kTapeActive]);
    return m;
  }

  // From a stage's output back to its state before the sample.
  HYBRID_INLINE void move_back(const CarCoefficients<V>& k, const Moment& m, V y_bar, int64_t tile,
                               const OutputBars<V>& outputs, CarState<V>& a,
                               CarCoefficients<V>& g) const {
    if (outputs.agc) a.undamping += outputs.agc[tile];
    turn_back(k, m.turn, m.z1, m.z2, m.x, m.undamping, m.gain, y_bar, a, g, w.shape.linear);
    if (outputs.ohc) a.z2 += outputs.ohc[tile];
  }

  void by_clip(int64_t ear, int64_t n, const Glide<V>* glide, const V* tape, int64_t tape_step,
               const OutputBars<V>& outputs, T* x_bar) {
    const bool delay = w.shape.delay;
    V* const xs = reinterpret_cast<V*>(x_bar);
    V y_bars[kMaxBlock];
    for (int64_t t = 0; t < n; ++t) xs[t] = splat<V>(0);
    for (int64_t p = w.positions - 1; p >= 0; --p) {
      detect_back(ear, p, n, tape, tape_step, outputs, y_bars);
      const int64_t at = ear * w.positions + p;
      const auto k = widen<V>(static_cast<const CarCoefficients<typename L::K>&>(w.car_ihc[at]));
      CarState<V> a;
      copy_each<V>(a, static_cast<const CarState<V>&>(bar.cells[at]));
      CarCoefficients<V> g;
      copy_each<V>(g, static_cast<const CarCoefficients<V>&>(sums[at]));
      Glide<V> steps;
      copy_each<V>(steps, glide[p]);
      const V* entry = tape + p * rows(w) + (n - 1) * tape_step;
      for (int64_t t = n - 1; t >= 0; --t, entry -= tape_step) {
        const Moment m = moment(k, steps, t, entry, tape_step);
        // With a delay the next stage hears this one a sample later.
        const V y_bar = y_bars[t] + (delay ? a.stage_out : xs[t]);
        if (delay) a.stage_out = xs[t];
        xs[t] = fma(m.gain, y_bar, a.z1);
        move_back(k, m, y_bar, t * w.positions + p, outputs, a, g);
      }
      copy_each<V>(static_cast<CarState<V>&>(bar.cells[at]), a);
      copy_each<V>(static_cast<CarCoefficients<V>&>(sums[at]), g);
    }
  }

  void by_channel(int64_t ear, int64_t n, const Glide<V>* glide, const V* tape, int64_t tape_step,
                  const OutputBars<V>& outputs, T* x_bar) {
    const int64_t at = ear * w.positions, channels = w.shape.channels;
    for (int64_t p = 0; p < w.positions; ++p) {
      detect_back(ear, p, n, tape, tape_step, outputs, y_bars + p * kMaxBlock);
    }
    for (int64_t t = n - 1; t >= 0; --t) {
      for (int64_t p = 0; p < w.positions; ++p) {
        const V steps = splat<V>(T(t + 1));
        V y_bar = y_bars[p * kMaxBlock + t];
        if (w.shape.delay) y_bar += bar.cells[at + p].stage_out;
        store(outs + p * kLanes, y_bar);
        store(gains + p * kLanes, fma(steps, glide[p].gain_step, glide[p].gain));
        store(inputs + p * kLanes, bar.cells[at + p].z1);
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
        const V* const entry = tape + p * rows(w) + t * tape_step;
        const CarCoefficients<V>& k = w.car_ihc[at + p];
        move_back(k, moment(k, glide[p], t, entry, tape_step), load<V>(outs + p * kLanes),
                  t * w.positions + p, outputs, bar.cells[at + p], sums[at + p]);
      }
    }
  }
};

}  // namespace HYBRID_ISA
}  // namespace carfac
