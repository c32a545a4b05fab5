// Exists to step a task sample by sample between two updates of the gain control, handing each
// sample to whoever wants it: outputs, or the tape from which the transpose works.
#pragma once

#include "work.h"

namespace carfac {
namespace HYBRID_ISA {

// Samples between two looks at the gain control, at most.
constexpr int64_t kMaxBlock = 16;

// Samples that a channel takes in one go when clips are in the lanes: its state then stays in
// registers, and all channels' states, which together are larger than the first-level cache, are
// read and written that much less often. With more, a resonator waits for its own last sample.
constexpr int64_t kTogether = 8;

// Channels that step side by side then: each has to wait for divisions, the other does not.
constexpr int kAbreast = 3;

// Who listens: nobody, one who wants nap, or one who says which.
enum Tiles { kNoTiles, kNapTiles, kAnyTiles };

// Tiles of successive samples of one ear, each null where nobody wants it.
template <class V>
struct SampleTiles {
  V* nap = nullptr;
  V* bm = nullptr;
  V* ohc = nullptr;
  V* agc = nullptr;
  V* potential = nullptr;
  V* firings = nullptr;  // [K], tiles, for each sample
};

// What the transpose needs of each sample and position: vectors in the order
// these, inner hair cells, fibres. z1, z2, hair cells and fibres are as before the sample; what
// takes a division is kept, too.
enum TapeRow : int64_t {
  kTapeZ1,
  kTapeZ2,
  kTapeActive,
  kTapeInput,
  kTapeBm,
  kTapeOpening,
  kTapeSlope,
  kTapeIhc
};

template <class L, int kStyle>
struct Advance {
  typedef Work<L, kStyle> W;
  typedef typename L::T T;
  typedef typename L::V V;
  static constexpr int kLanes = L::kLanes;
  static constexpr int64_t kIhcRows = W::kCellRows - kCarStateRows;

  W& w;
  // When channels are in the lanes: of the ripple, and bm as [positions, kTogether].
  T *push, *gains, *outs, *inputs;
  V* moved;

  Advance(W& work, Arena& arena) : w(work) {
    const int64_t n = L::kClips ? 0 : w.size + 2 * kLanes;
    push = arena.take<T>(n);
    gains = arena.take<T>(n);
    outs = arena.take<T>(n);
    inputs = arena.take<T>(n);
    moved = arena.take<V>(L::kClips ? 0 : w.positions * kTogether);
  }

  static int64_t tape_rows(const W& w) { return kTapeIhc + kIhcRows + 2 * w.classes; }

  // Up to kTogether samples of one ear.
  //   audio: one number for each clip in the lanes, [n]; overwritten.
  //   tape: of the first sample and this ear; samples are `tape_step` vectors apart.
  template <bool kTape, Tiles kTiles>
  void samples(int64_t ear, int64_t n, T* audio, V* tape, int64_t tape_step,
               const SampleTiles<V>& tiles) {
    if constexpr (L::kClips) {
      by_clip<kTape, kTiles>(ear, n, reinterpret_cast<V*>(audio), tape, tape_step, tiles);
    } else {
      for (int64_t t = 0; t < n; ++t) {
        by_channel<kTape, kTiles>(ear, t, audio[t], tape + t * tape_step, tiles);
      }
      for (int64_t p = 0; p < w.positions; ++p) {
        detect<kTape, kTiles>(ear, p, n, moved + p * kTogether, tape + p * tape_rows(w), tape_step,
                              tiles);
      }
    }
  }

 private:
  template <bool kTape, Tiles kTiles>
  void by_clip(int64_t ear, int64_t n, V* x, V* tape, int64_t tape_step,
               const SampleTiles<V>& tiles) {
    int64_t p = 0;
    for (; p + kAbreast <= w.positions; p += kAbreast) {
      channels<kAbreast, kTape, kTiles>(ear, p, n, x, tape, tape_step, tiles);
    }
    for (; p < w.positions; ++p) channels<1, kTape, kTiles>(ear, p, n, x, tape, tape_step, tiles);
  }

  // kCount channels from p on; on entry x is what the first hears, on return what the last gives.
  template <int kCount, bool kTape, Tiles kTiles>
  HYBRID_INLINE void channels(int64_t ear, int64_t p, int64_t n, V* x, V* tape, int64_t tape_step,
                              const SampleTiles<V>& tiles) {
    const int64_t at = ear * w.positions + p, rows = tape_rows(w);
    V bm[kCount][kTogether];
    {
      const bool linear = w.shape.linear, delay = w.shape.delay;
      CarCoefficients<V> k[kCount];
      CarState<V> s[kCount];
#pragma GCC unroll 4
      for (int i = 0; i < kCount; ++i) {
        k[i] = widen<V>(static_cast<const CarCoefficients<typename L::K>&>(w.car_ihc[at + i]));
        copy_each<V>(s[i], static_cast<const CarState<V>&>(w.cells[at + i]));
      }
      V* entry = kTape ? tape + p * rows : nullptr;
      for (int64_t t = 0; t < n; ++t) {
        V in = x[t];
#pragma GCC unroll 4
        for (int i = 0; i < kCount; ++i) {
          V* const here = kTape ? entry + i * rows : nullptr;
          const V pushed =
              begin<kTape, kTiles>(k[i], s[i], here, tiles, t * w.positions + p + i, linear);
          const V y = fma(s[i].gain, in, pushed);
          const V next = delay ? s[i].stage_out : y;
          bm[i][t] = move<kTape>(k[i], s[i], in, y, here, delay);
          in = next;
        }
        x[t] = in;
        if constexpr (kTape) entry += tape_step;
      }
#pragma GCC unroll 4
      for (int i = 0; i < kCount; ++i) {
        copy_each<V>(static_cast<CarState<V>&>(w.cells[at + i]), s[i]);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) {
      detect<kTape, kTiles>(ear, p + i, n, bm[i], kTape ? tape + (p + i) * rows : nullptr,
                            tape_step, tiles);
    }
  }

  template <bool kTape, Tiles kTiles>
  void by_channel(int64_t ear, int64_t t, T x, V* tape, const SampleTiles<V>& tiles) {
    const int64_t at = ear * w.positions, positions = w.positions, tape_rows_ = tape_rows(w);
    const bool linear = w.shape.linear, delay = w.shape.delay;
    for (int64_t p = 0; p < positions; ++p) {
      CarState<V>& s = w.cells[at + p];
      const V pushed = begin<kTape, kTiles>(w.car_ihc[at + p], s, tape + p * tape_rows_, tiles,
                                            t * positions + p, linear);
      store(push + p * kLanes, pushed);
      store(gains + p * kLanes, s.gain);
      if (delay) store(inputs + 1 + p * kLanes, s.stage_out);
    }
    inputs[0] = x;
    if (delay) {
      for (int64_t p = 0; p < positions; ++p) {
        const V y = fma(load<V>(gains + p * kLanes), load<V>(inputs + p * kLanes),
                        load<V>(push + p * kLanes));
        store(outs + p * kLanes, y);
      }
    } else {
      for (int64_t c = 0; c < w.shape.channels; ++c) {
        x = fma(gains[c], x, push[c]);
        inputs[c + 1] = x;
      }
    }
    const T* const outputs = delay ? outs : inputs + 1;
    for (int64_t p = 0; p < positions; ++p) {
      V* const here = tape + p * tape_rows_;
      moved[p * kTogether + t] =
          move<kTape>(w.car_ihc[at + p], static_cast<CarState<V>&>(w.cells[at + p]),
                      load<V>(inputs + p * kLanes), load<V>(outputs + p * kLanes), here, delay);
    }
  }

  // What a stage does before it knows its input; returns what it adds to gain times input.
  template <bool kTape, Tiles kTiles>
  HYBRID_INLINE V begin(const CarCoefficients<V>& k, CarState<V>& s, V* tape,
                        const SampleTiles<V>& tiles, int64_t tile, bool linear) {
    s.undamping += s.undamping_step;
    s.gain += s.gain_step;
    if constexpr (kTape) {
      tape[kTapeZ1] = s.z1;
      tape[kTapeZ2] = s.z2;
    }
    if constexpr (kTiles == kAnyTiles) {
      if (tiles.ohc) tiles.ohc[tile] = s.z2;
      if (tiles.agc) tiles.agc[tile] = s.undamping;
    }
    const Turn<V> t = turn(k, s.z1, s.z2, s.z2_before, s.undamping, linear);
    if constexpr (kTape) tape[kTapeActive] = t.active;
    s.z2_before = s.z2;
    s.z1 = t.z1;
    s.z2 = t.z2;
    return s.gain * (k.zero * t.z2);
  }

  // What it does once input and output are known; returns bm.
  template <bool kTape>
  HYBRID_INLINE V move(const CarCoefficients<V>& k, CarState<V>& s, V x, V y, V* tape,
                       bool delay) {
    s.z1 += x;
    if (delay) s.stage_out = y;
    const V bm = y - s.ac;
    s.ac = fma(k.ac_rate, bm, s.ac);
    if constexpr (kTape) {
      tape[kTapeInput] = x;
      tape[kTapeBm] = bm;
    }
    return bm;
  }

  // From bm, [n], on: hair cells, synapses, what the gain control hears.
  template <bool kTape, Tiles kTiles>
  HYBRID_INLINE void detect(int64_t ear, int64_t p, int64_t n, const V* bm, V* tape, int64_t tape_step,
                            const SampleTiles<V>& tiles) {
    typedef IhcState<V, kStyle> State;
    const int64_t at = ear * w.positions + p;
    const auto k = widen<V>(w.car_ihc[at]);
    State s;
    copy_each<V>(s, static_cast<const State&>(w.cells[at]));
    T* const heard = w.shape.stages ? w.sum(0, ear) + p * kLanes : nullptr;
    const V scale = splat<V>(w.detect_scale(ear));
    V sum = heard ? load<V>(heard) : splat<V>(0);
    V* const fibres = W::kSynapse ? w.fibres + at * 2 * w.classes : nullptr;
    int64_t tile = p;
    for (int64_t t = 0; t < n; ++t, tile += w.positions) {
      const Conductance<V> opening = conductance(bm[t]);
      if constexpr (kTape) {
        if constexpr (kIhcRows > 0) {
          tape[kTapeOpening] = opening.value;
          tape[kTapeSlope] = opening.slope;
          copy_each<V>(*reinterpret_cast<State*>(tape + kTapeIhc), s);
        }
        for (int64_t r = 0; r < 2 * w.classes; ++r) tape[kTapeIhc + kIhcRows + r] = fibres[r];
        tape += tape_step;
      }
      const IhcOutput<V> out = ihc_step(k, s, bm[t], opening);
      V nap = out.nap;
      if constexpr (W::kSynapse) {
        V* const firings = kTiles == kAnyTiles && tiles.firings
                               ? tiles.firings + (tile - p) * w.classes + p
                               : nullptr;
        nap = synapse_step<V>(w.synapse[at], w.of_class + at * w.classes, w.classes, fibres,
                              out.potential, firings, w.positions);
      }
      sum = fma(scale, nap, sum);
      if constexpr (kTiles != kNoTiles) {
        tiles.nap[tile] = nap;
        if constexpr (kTiles == kAnyTiles) {
          if (tiles.bm) tiles.bm[tile] = bm[t];
          if (tiles.potential) tiles.potential[tile] = out.potential;
        }
      }
    }
    copy_each<V>(static_cast<State&>(w.cells[at]), s);
    if (heard) store(heard, sum);
  }
};

}  // namespace HYBRID_ISA
}  // namespace carfac
