// Exists to run a task forward: blocks between updates of the gain control, outputs, frames and
// checkpoints.
#pragma once

#include "advance.h"
#include "agc.h"

namespace carfac {
namespace HYBRID_ISA {

// A run of samples after which the gain control updates `due` of its stages (0: none).
struct Block {
  int64_t samples, due;
};

inline __attribute__((always_inline)) int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// The block that begins `at` samples into the piece and ends within `left` samples.
template <class L, int kStyle>
Block block_at(const Shape& s, int64_t at, int64_t left) {
  int64_t n = least(left, kMaxBlock);
  if (!s.stages) return {n, 0};
  const int64_t size = s.decimations[0], phase = s.phase + at;
  n = least(n, size - phase % size);
  return {n, (phase + n) % size ? 0 : Agc<L, kStyle>::stages_due(s, phase + n)};
}

template <class L, int kStyle>
struct ForwardTask {
  typedef Work<L, kStyle> W;
  typedef typename L::T T;
  typedef typename L::V V;
  static constexpr int kLanes = L::kLanes;

  const Forward<T>& f;
  Task task;
  Arena arena;
  W w;
  Advance<L, kStyle> advance;
  Agc<L, kStyle> agc;
  T* audio;        // [kMaxBlock], one number for each clip in the lanes
  V* tiles;        // [5 + K, kTogether], tiles; see `tiles_of`
  T* frame_sums;   // [E, M], tiles

  ForwardTask(const Forward<T>& forward, Task t, void* memory)
      : f(forward), task(t), arena(memory), w(f.shape, t, arena), advance(w, arena),
        agc(w, arena) {
    audio = arena.take<T>(kMaxBlock * kLanes);
    tiles = arena.take<V>((5 + f.shape.classes) * kTogether * w.positions);
    frame_sums = arena.take<T>(f.shape.ears * f.shape.segments * w.size);
  }

  void run() {
    const Shape& s = f.shape;
    w.read_coefficients(f.in.coefficients, f.in.agc);
    w.read_state(f.in.state);
    std::memset(frame_sums, 0, s.ears * s.segments * w.size * sizeof(T));
    if (!L::kClips) clear_ripple(advance, w);
    if (s.open_loop || !s.stages) stop_steps(w);
    const bool many = f.out.bm || f.out.ohc || f.out.agc || f.out.potential || f.out.firings;
    int64_t next_checkpoint = 0;
    for (int64_t at = 0; at < s.samples;) {
      int64_t left = s.samples - at;
      if (f.checkpoints) {
        if (at == next_checkpoint) {
          const int64_t size = s.clips * s.state_rows * s.ears * s.channels;
          w.write_state(f.checkpoints + at / s.interval * size);
          next_checkpoint += s.interval;
        }
        left = least(left, next_checkpoint - at);
      }
      const Block block = block_at<L, kStyle>(s, at, left);
      for (int64_t e = 0; e < s.ears; ++e) {
        read_audio(f.in.audio, s, task, at, block.samples, e, audio);
        if (many) {
          samples<true>(e, at, block.samples);
        } else {
          samples<false>(e, at, block.samples);
        }
      }
      if (block.due) agc.update(block.due, agc.record(nullptr));
      at += block.samples;
    }
    w.write_state(f.state);
  }

  // Audio of one ear, `[n]` by lanes.
  static void read_audio(const T* audio, const Shape& s, Task task, int64_t at, int64_t n,
                         int64_t ear, T* to) {
    const int64_t step = L::kStep;
    for (int64_t l = 0; l < step; ++l) {
      const T* const from = audio + ((task.first + l) * s.samples + at) * s.ears + ear;
      for (int64_t t = 0; t < n; ++t) to[t * step + l] = l < task.count ? from[t * s.ears] : T(0);
    }
  }

  static void clear_ripple(Advance<L, kStyle>& advance, const W& w) {
    const size_t bytes = (w.size + 2 * kLanes) * sizeof(T);
    for (T* row : {advance.push, advance.gains, advance.outs, advance.inputs}) {
      std::memset(row, 0, bytes);
    }
  }

  static void stop_steps(W& w) {
    for (int64_t i = 0; i < w.shape.ears * w.positions; ++i) {
      w.cells[i].undamping_step = w.cells[i].gain_step = splat<V>(0);
    }
  }

 private:
  // Tiles of kTogether samples, in the order nap, bm, ohc, agc, potential, firings.
  V* tiles_of(int64_t output) const { return tiles + output * kTogether * w.positions; }

  template <bool kMany>
  void samples(int64_t ear, int64_t at, int64_t n) {
    const Traces<T>& o = f.out;
    SampleTiles<V> t;
    t.nap = tiles_of(0);
    if constexpr (kMany) {
      if (o.bm) t.bm = tiles_of(1);
      if (o.ohc) t.ohc = tiles_of(2);
      if (o.agc) t.agc = tiles_of(3);
      if (o.potential) t.potential = tiles_of(4);
      if (o.firings) t.firings = tiles_of(5);
    }
    for (int64_t begun = 0; begun < n; begun += kTogether) {
      const int64_t some = least(kTogether, n - begun);
      advance.template samples<false, kMany ? kAnyTiles : kNapTiles>(ear, some, audio + begun * L::kStep, nullptr, 0, t);
      for (int64_t i = 0; i < some; ++i) {
        const int64_t now = at + begun + i, tile = i * w.positions;
        if (o.nap) write(t.nap + tile, o.nap, ear, now);
        if (o.frames) add_to_frame(t.nap + tile, ear, now);
        if constexpr (kMany) {
          if (o.bm) write(t.bm + tile, o.bm, ear, now);
          if (o.ohc) write(t.ohc + tile, o.ohc, ear, now);
          if (o.agc) write(t.agc + tile, o.agc, ear, now);
          if (o.potential) write(t.potential + tile, o.potential, ear, now);
          if (o.firings) write_firings(t.firings + tile * f.shape.classes, ear, now);
        }
      }
    }
  }

  void write(const V* tile, T* to, int64_t ear, int64_t at) {
    const Shape& s = f.shape;
    const int64_t row = s.ears * s.channels, clip = s.samples * row;
    L::write(reinterpret_cast<const T*>(tile), to + task.first * clip + at * row + ear * s.channels,
             clip, task.count, s.channels);
  }

  void write_firings(const V* of_sample, int64_t ear, int64_t at) {
    const Shape& s = f.shape;
    const T* const from = reinterpret_cast<const T*>(of_sample);
    for (int64_t l = 0; l < task.count; ++l) {
      T* const to = f.out.firings + (((task.first + l) * s.samples + at) * s.ears + ear) *
                                        s.channels * s.classes;
      for (int64_t c = 0; c < s.channels; ++c) {
        for (int64_t k = 0; k < s.classes; ++k) {
          to[c * s.classes + k] = from[k * w.size + c * L::kStep + l];
        }
      }
    }
  }

  void add_to_frame(const V* tile, int64_t ear, int64_t at) {
    const Shape& s = f.shape;
    const int64_t frame = at / s.hop, within = at % s.hop;
    if (frame >= s.frames) return;
    const T* const nap = reinterpret_cast<const T*>(tile);
    for (int64_t m = 0; m < s.segments; ++m) {
      T* const sums = frame_sums + (ear * s.segments + m) * w.size;
      const V weight = splat<V>(f.in.window[m * s.hop + within]);
      for (int64_t i = 0; i < w.size; i += kLanes) {
        store(sums + i, fma(weight, load<V>(nap + i), load<V>(sums + i)));
      }
      if (within + 1 < s.hop) continue;
      const int64_t row = s.ears * s.channels, clip = s.frames * s.segments * row;
      L::write(sums,
               f.out.frames + task.first * clip + (frame * s.segments + m) * row +
                   ear * s.channels,
               clip, task.count, s.channels);
      std::memset(sums, 0, w.size * sizeof(T));
    }
  }
};

}  // namespace HYBRID_ISA
}  // namespace carfac
