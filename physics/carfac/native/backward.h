// Exists to run a task backward: from the last checkpoint to the first, forward again with a tape,
// then the transpose of every sample and every update of the gain control.
#pragma once

#include "forward.h"
#include "retreat.h"

namespace carfac {
namespace HYBRID_ISA {

// Segments after which single-precision sums are added to those in double precision.
constexpr int64_t kFlush = 16;

template <class L, int kStyle>
struct BackwardTask {
  typedef Work<L, kStyle> W;
  typedef typename L::T T;
  typedef typename L::V V;
  typedef Agc<L, kStyle> AgcOf;
  static constexpr int kLanes = L::kLanes;

  const Backward<T>& b;
  Task task;
  Arena arena;
  W w, bar;
  Advance<L, kStyle> advance;
  AgcOf agc;
  Retreat<L, kStyle> retreat;
  Block* blocks;       // [interval]
  T* records;          // [interval / decimations[0] + 1], of updates
  Glide<V>* glides;    // [blocks, E, positions]
  V* tape;             // [1 + interval, E, positions, tape rows]; of the first only z2 is used
  T* audio;            // [kMaxBlock], one number for each clip in the lanes
  V* outputs;          // [kMaxBlock, 5 + K], tiles: cotangents of outputs
  V* frame;            // [E, M], tiles: cotangents of a frame
  int64_t frame_held;
  T* sums;             // all sums towards gradients: of positions, synapses, classes, gain control
  double* totals;      // the same in double precision
  int64_t sum_count, synapse_at, class_at, agc_at;

  BackwardTask(const Backward<T>& backward, Task t, void* memory)
      : b(backward), task(t), arena(memory), w(b.shape, t, arena), bar(b.shape, t, arena),
        advance(w, arena), agc(w, arena), retreat(w, bar, arena) {
    const Shape& s = b.shape;
    const int64_t n = s.ears * w.positions, interval = s.interval;
    blocks = arena.take<Block>(interval);
    records = arena.take<T>(most_updates() * AgcOf::record_size(w));
    glides = arena.take<Glide<V>>(most_blocks() * n);
    tape = arena.take<V>((1 + interval) * n * Advance<L, kStyle>::tape_rows(w));
    audio = arena.take<T>(kMaxBlock * kLanes);
    outputs = arena.take<V>(kMaxBlock * (5 + s.classes) * w.positions);
    frame = arena.take<V>(n * s.segments);
    synapse_at = n * Retreat<L, kStyle>::kSumRows * kLanes;
    class_at = synapse_at + (W::kSynapse ? n * kSynapseRows * kLanes : 0);
    agc_at = class_at + n * w.classes * kSynapseClassRows * kLanes;
    sum_count = agc_at + (kAgcStageRows * s.stages + 1) * s.ears * w.size;
    sums = arena.take<T>(sum_count);
    totals = arena.take<double>(sum_count);
  }

  int64_t most_blocks() const {
    const Shape& s = b.shape;
    if (!s.stages) return s.interval / kMaxBlock + 1;
    // Whole stretches between updates, and one begun and one broken off at the ends.
    const int64_t size = s.decimations[0], pieces = (size + kMaxBlock - 1) / kMaxBlock;
    return least(s.interval, (s.interval / size + 2) * pieces);
  }
  int64_t most_updates() const {
    const Shape& s = b.shape;
    return s.stages ? s.interval / s.decimations[0] + 1 : 0;
  }

  void run() {
    const Shape& s = b.shape;
    w.read_coefficients(b.in.coefficients, b.in.agc);
    if (!L::kClips) ForwardTask<L, kStyle>::clear_ripple(advance, w);
    if (!L::kClips) clear_ripple();
    bar.read_state(b.state);
    std::memset(sums, 0, sum_count * sizeof(T));
    std::memset(totals, 0, sum_count * sizeof(double));
    retreat.sums = reinterpret_cast<Sums<V, kStyle>*>(sums);
    retreat.synapse = reinterpret_cast<SynapseCoefficients<V>*>(sums + synapse_at);
    retreat.of_class = reinterpret_cast<ClassCoefficients<V>*>(sums + class_at);
    frame_held = -1;
    for (int64_t c = s.checkpoints - 1; c >= 0; --c) {
      segment(c);
      if (c % kFlush == 0) flush();
    }
    // With the loop open both steps were taken as zero, whatever the state said.
    if (s.open_loop || !s.stages) ForwardTask<L, kStyle>::stop_steps(bar);
    bar.write_state(b.state_bar);
    write_sums();
  }

 private:
  void segment(int64_t checkpoint) {
    const Shape& s = b.shape;
    const int64_t n = s.ears * w.positions, rows = Advance<L, kStyle>::tape_rows(w);
    const int64_t start = checkpoint * s.interval, length = least(s.interval, s.samples - start);
    const int64_t tape_step = n * rows, ear_step = w.positions * rows;
    w.read_state(b.checkpoints + checkpoint * s.clips * s.state_rows * s.ears * s.channels);
    for (int64_t i = 0; i < n; ++i) tape[i * rows + kTapeZ2] = w.cells[i].z2_before;
    V* const first_tape = tape + tape_step;
    int64_t count = 0, updates = 0;
    for (int64_t at = 0; at < length; ++count) {
      const Block block = block_at<L, kStyle>(s, start + at, length - at);
      blocks[count] = block;
      for (int64_t i = 0; i < n; ++i) {
        const auto& c = w.cells[i];
        glides[count * n + i] = {c.undamping, c.undamping_step, c.gain, c.gain_step};
      }
      for (int64_t e = 0; e < s.ears; ++e) {
        ForwardTask<L, kStyle>::read_audio(b.in.audio, s, task, start + at, block.samples, e,
                                           audio);
        for (int64_t t = 0; t < block.samples; t += kTogether) {
          advance.template samples<true, kNoTiles>(
              e, least(kTogether, block.samples - t), audio + t * L::kStep,
              first_tape + (at + t) * tape_step + e * ear_step, tape_step, {});
        }
      }
      if (block.due) agc.update(block.due, record(updates++));
      at += block.samples;
    }
    int64_t at = length;
    while (count-- > 0) {
      const Block block = blocks[count];
      if (block.due) {
        agc.update_back(block.due, record(--updates), bar, retreat.sums,
                        Retreat<L, kStyle>::kSumRows, sums + agc_at);
      }
      at -= block.samples;
      for (int64_t e = 0; e < s.ears; ++e) {
        const OutputBars<V> bars = read_outputs(e, start + at, block.samples);
        retreat.block(e, block.samples, glides + count * n + e * w.positions,
                      first_tape + at * tape_step + e * ear_step, tape_step, bars, audio);
        write_audio(e, start + at, block.samples);
      }
    }
  }

  typename AgcOf::Record record(int64_t i) {
    return agc.record(records + i * AgcOf::record_size(w));
  }

  OutputBars<V> read_outputs(int64_t ear, int64_t at, int64_t n) {
    const int64_t step = kMaxBlock * w.positions;
    const Traces<const T>& o = b.out;
    OutputBars<V> bars;
    bars.nap = outputs;
    if (!read(o.nap, outputs, ear, at, n) && !o.frames) {
      std::memset(outputs, 0, n * w.positions * sizeof(V));
    }
    if (o.frames) add_frames(outputs, ear, at, n);
    bars.bm = read(o.bm, outputs + step, ear, at, n);
    bars.ohc = read(o.ohc, outputs + 2 * step, ear, at, n);
    bars.agc = read(o.agc, outputs + 3 * step, ear, at, n);
    bars.potential = read(o.potential, outputs + 4 * step, ear, at, n);
    if (o.firings) bars.firings = read_firings(outputs + 5 * step, ear, at, n);
    return bars;
  }

  const V* read(const T* from, V* to, int64_t ear, int64_t at, int64_t n) {
    if (!from) return nullptr;
    const Shape& s = b.shape;
    const int64_t row = s.ears * s.channels, clip = s.samples * row;
    for (int64_t t = 0; t < n; ++t) {
      L::read(reinterpret_cast<T*>(to + t * w.positions),
              from + task.first * clip + (at + t) * row + ear * s.channels, clip, task.count,
              s.channels);
    }
    return to;
  }

  const V* read_firings(V* to, int64_t ear, int64_t at, int64_t n) {
    const Shape& s = b.shape;
    std::memset(to, 0, n * s.classes * w.positions * sizeof(V));
    for (int64_t t = 0; t < n; ++t) {
      T* const tile = reinterpret_cast<T*>(to + t * s.classes * w.positions);
      for (int64_t l = 0; l < task.count; ++l) {
        const T* const from = b.out.firings + (((task.first + l) * s.samples + at + t) * s.ears +
                                               ear) * s.channels * s.classes;
        for (int64_t c = 0; c < s.channels; ++c) {
          for (int64_t k = 0; k < s.classes; ++k) {
            tile[k * w.size + c * L::kStep + l] = from[c * s.classes + k];
          }
        }
      }
    }
    return to;
  }

  // Adds the cotangent of nap that comes from frames (or, without one of nap, writes it).
  void add_frames(V* to, int64_t ear, int64_t at, int64_t n) {
    const Shape& s = b.shape;
    const bool fresh = !b.out.nap;
    for (int64_t t = 0; t < n; ++t) {
      const int64_t of_frame = (at + t) / s.hop, within = (at + t) % s.hop;
      V* const tile = to + t * w.positions;
      if (of_frame >= s.frames) {
        if (fresh) std::memset(tile, 0, w.positions * sizeof(V));
        continue;
      }
      if (of_frame != frame_held) hold_frame(of_frame);
      const V* const held = frame + ear * s.segments * w.positions;
      const V weight = splat<V>(b.in.window[within]);
      for (int64_t p = 0; p < w.positions; ++p) {
        tile[p] = fresh ? weight * held[p] : fma(weight, held[p], tile[p]);
      }
      for (int64_t m = 1; m < s.segments; ++m) {
        const V more = splat<V>(b.in.window[m * s.hop + within]);
        for (int64_t p = 0; p < w.positions; ++p) {
          tile[p] = fma(more, held[m * w.positions + p], tile[p]);
        }
      }
    }
  }

  void hold_frame(int64_t of_frame) {
    const Shape& s = b.shape;
    const int64_t row = s.ears * s.channels, clip = s.frames * s.segments * row;
    for (int64_t e = 0; e < s.ears; ++e) {
      for (int64_t m = 0; m < s.segments; ++m) {
        L::read(reinterpret_cast<T*>(frame + (e * s.segments + m) * w.positions),
                b.out.frames + task.first * clip + (of_frame * s.segments + m) * row +
                    e * s.channels,
                clip, task.count, s.channels);
      }
    }
    frame_held = of_frame;
  }

  void write_audio(int64_t ear, int64_t at, int64_t n) {
    const Shape& s = b.shape;
    for (int64_t l = 0; l < task.count; ++l) {
      T* const to = b.audio_bar + ((task.first + l) * s.samples + at) * s.ears + ear;
      for (int64_t t = 0; t < n; ++t) to[t * s.ears] = audio[t * L::kStep + l];
    }
  }

  void clear_ripple() {
    for (T* row : {retreat.gains, retreat.inputs, retreat.outs}) {
      std::memset(row, 0, (w.size + 2 * kLanes) * sizeof(T));
    }
  }

  void flush() {
    for (int64_t i = 0; i < sum_count; ++i) totals[i] += static_cast<double>(sums[i]);
    std::memset(sums, 0, sum_count * sizeof(T));
  }

  // Into [B, P + 5 S + 2, E, C].
  void write_sums() {
    const Shape& s = b.shape;
    constexpr int64_t kFields = Retreat<L, kStyle>::kSumRows;
    const int64_t stage_rows = kAgcStageRows * s.stages, n = s.ears * w.positions;
    const auto put = [&](int64_t row, int64_t first, int64_t fields, int64_t field) {
      for (int64_t e = 0; e < s.ears; ++e) {
        const double* const from = totals + first + e * w.positions * fields * kLanes;
        write_row(row, e, from + field * kLanes, fields * kLanes);
      }
    };
    for (int64_t r = 0; r + 1 < kFields; ++r) put(r, 0, kFields, r);
    if (W::kSynapse) {
      for (int64_t r = 0; r < kSynapseRows; ++r) {
        put(W::kRows + r, synapse_at, kSynapseRows, r);
      }
      for (int64_t r = 0; r < kSynapseClassRows; ++r) {
        for (int64_t c = 0; c < w.classes; ++c) {
          put(W::kRows + kSynapseRows + r * w.classes + c, class_at,
              kSynapseClassRows * w.classes, c * kSynapseClassRows + r);
        }
      }
    }
    for (int64_t r = 0; r <= stage_rows; ++r) {
      put(s.coefficient_rows + r, agc_at + r * n * kLanes, 1, 0);
    }
    put(s.coefficient_rows + stage_rows + 1, 0, kFields, kFields - 1);
  }

  // One row of one ear, from positions that lie `stride` numbers apart.
  void write_row(int64_t row, int64_t ear, const double* from, int64_t stride) {
    const Shape& s = b.shape;
    const int64_t rows = s.coefficient_rows + kAgcStageRows * s.stages + kAgcSharedRows;
    for (int64_t l = 0; l < task.count; ++l) {
      double* const to = b.sums + (((task.first + l) * rows + row) * s.ears + ear) * s.channels;
      for (int64_t c = 0; c < s.channels; ++c) {
        to[c] = L::kClips ? from[c * stride + l] : from[c / kLanes * stride + c % kLanes];
      }
    }
  }
};

}  // namespace HYBRID_ISA
}  // namespace carfac
