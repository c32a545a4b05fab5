// Exists to step a task sample by sample between two updates of the gain control, handing each
// sample to whoever wants it: outputs, or the tape from which the transpose works.
#pragma once

#include "work.h"

namespace carfac {
namespace HYBRID_ISA {

// Tiles of one sample of one ear, each null where nobody wants it.
template <class V>
struct SampleTiles {
  V* nap = nullptr;
  V* bm = nullptr;
  V* ohc = nullptr;
  V* agc = nullptr;
  V* potential = nullptr;
  V* firings = nullptr;  // [K], tiles
};

// What the transpose needs of each sample and position: vectors in the order
// z1, z2, input, bm, inner hair cells, fibres; all but input and bm are as before the sample.
enum TapeRow : int64_t { kTapeZ1 = 0, kTapeZ2 = 1, kTapeInput = 2, kTapeBm = 3, kTapeIhc = 4 };

template <class L, int kStyle>
struct Advance {
  typedef Work<L, kStyle> W;
  typedef typename L::T T;
  typedef typename L::V V;
  static constexpr int kLanes = L::kLanes;
  static constexpr int64_t kIhcRows = W::kCellRows - kCarStateRows;

  W& w;
  T *push, *gains, *outs, *inputs;  // of the ripple, when channels are in the lanes

  Advance(W& work, Arena& arena) : w(work) {
    const int64_t n = L::kClips ? 0 : w.size + 2 * kLanes;
    push = arena.take<T>(n);
    gains = arena.take<T>(n);
    outs = arena.take<T>(n);
    inputs = arena.take<T>(n);
  }

  static int64_t tape_rows(const W& w) { return kTapeIhc + kIhcRows + 2 * w.classes; }

  // One sample of one ear. `audio` is one number for each clip in the lanes; `tape` is that of this
  // sample and ear.
  template <bool kTape, bool kTiles>
  HYBRID_INLINE void sample(int64_t ear, const T* audio, V* tape, const SampleTiles<V>& tiles) {
    const int64_t at = ear * w.positions, positions = w.positions;
    const int64_t tape_step = tape_rows(w);
    T* const heard = w.shape.stages ? w.sum(0, ear) : nullptr;
    const V detect = splat<V>(w.detect_scale(ear));
    const bool linear = w.shape.linear, delay = w.shape.delay;
    if constexpr (L::kClips) {
      V x = load<V>(audio);
      for (int64_t p = 0; p < positions; ++p) {
        const Coefficients<V, kStyle> k = widen<V>(w.car_ihc[at + p]);
        Cell<V, kStyle>& s = w.cells[at + p];
        V* const t = kTape ? tape + p * tape_step : nullptr;
        const V pushed = begin<kTape, kTiles>(k, s, t, tiles, p, linear);
        const V y = fma(s.gain, x, pushed);
        const V next = delay ? s.stage_out : y;
        end<kTape, kTiles>(k, s, at, p, x, y, t, heard, detect, tiles);
        x = next;
      }
    } else {
      for (int64_t p = 0; p < positions; ++p) {
        Cell<V, kStyle>& s = w.cells[at + p];
        V* const t = kTape ? tape + p * tape_step : nullptr;
        const V pushed = begin<kTape, kTiles>(w.car_ihc[at + p], s, t, tiles, p, linear);
        store(push + p * kLanes, pushed);
        store(gains + p * kLanes, s.gain);
        if (delay) store(inputs + 1 + p * kLanes, s.stage_out);
      }
      T x = audio[0];
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
        V* const t = kTape ? tape + p * tape_step : nullptr;
        end<kTape, kTiles>(w.car_ihc[at + p], w.cells[at + p], at, p,
                           load<V>(inputs + p * kLanes), load<V>(outputs + p * kLanes), t, heard,
                           detect, tiles);
      }
    }
  }

 private:
  typedef Coefficients<V, kStyle> Wide;

  // What a stage does before it knows its input; returns what it adds to gain times input.
  template <bool kTape, bool kTiles>
  HYBRID_INLINE V begin(const Wide& k, Cell<V, kStyle>& s, V* tape, const SampleTiles<V>& tiles,
                        int64_t p, bool linear) {
    s.undamping += s.undamping_step;
    s.gain += s.gain_step;
    if constexpr (kTape) {
      tape[kTapeZ1] = s.z1;
      tape[kTapeZ2] = s.z2;
    }
    if constexpr (kTiles) {
      if (tiles.ohc) tiles.ohc[p] = s.z2;
      if (tiles.agc) tiles.agc[p] = s.undamping;
    }
    const Turn<V> t = turn(k, s.z1, s.z2, s.z2_before, s.undamping, linear);
    s.z2_before = s.z2;
    s.z1 = t.z1;
    s.z2 = t.z2;
    return s.gain * (k.zero * t.z2);
  }

  // The rest, once input and output are known.
  template <bool kTape, bool kTiles>
  HYBRID_INLINE void end(const Wide& k, Cell<V, kStyle>& s, int64_t at, int64_t p, V x, V y,
                         V* tape, T* heard, V detect, const SampleTiles<V>& tiles) {
    s.z1 += x;
    if (w.shape.delay) s.stage_out = y;
    const V bm = y - s.ac;
    s.ac = fma(k.ac_rate, bm, s.ac);
    V* const fibres = W::kSynapse ? w.fibres + (at + p) * 2 * w.classes : nullptr;
    if constexpr (kTape) {
      tape[kTapeInput] = x;
      tape[kTapeBm] = bm;
      const V* const ihc = reinterpret_cast<const V*>(&s) + kCarStateRows;
#pragma GCC unroll 4
      for (int64_t r = 0; r < kIhcRows; ++r) tape[kTapeIhc + r] = ihc[r];
      for (int64_t r = 0; r < 2 * w.classes; ++r) tape[kTapeIhc + kIhcRows + r] = fibres[r];
    }
    const IhcOutput<V> out = ihc_step(k, static_cast<IhcState<V, kStyle>&>(s), bm);
    V nap = out.nap;
    if constexpr (W::kSynapse) {
      V* const firings = kTiles && tiles.firings ? tiles.firings + p : nullptr;
      nap = synapse_step<V>(w.synapse[at + p], w.of_class + (at + p) * w.classes, w.classes, fibres,
                            out.potential, firings, w.positions);
    }
    if (heard) store(heard + p * kLanes, fma(detect, nap, load<V>(heard + p * kLanes)));
    if constexpr (kTiles) {
      if (tiles.nap) tiles.nap[p] = nap;
      if (tiles.bm) tiles.bm[p] = bm;
      if (tiles.potential) tiles.potential[p] = out.potential;
    }
  }
};

}  // namespace HYBRID_ISA
}  // namespace carfac
