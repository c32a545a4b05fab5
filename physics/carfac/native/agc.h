// Exists to adapt: an update of the gain control, and the transpose of its derivative.
#pragma once

#include "smoother.h"
#include "work.h"

namespace carfac {
namespace HYBRID_ISA {

// Sums towards gradients of the gain control's coefficients, a tile for each row and ear.
enum AgcRow : int64_t { kEpsilon = 0, kLow = 1, kMiddle = 2, kHigh = 3, kMix = 4 };

template <class L, int kStyle>
struct Agc {
  typedef Work<L, kStyle> W;
  typedef typename L::T T;
  typedef typename L::V V;
  static constexpr int kLanes = L::kLanes;

  // What an update leaves for its transpose: of each stage and ear, the memory before and what it
  // was drawn towards.
  struct Record {
    T* base;
    int64_t stages, ears, haloed;
    T* before(int64_t s, int64_t e) const { return base + (s * ears + e) * haloed + L::kHalo; }
    T* target(int64_t s, int64_t e) const { return before(stages + s, e); }
  };

  W& w;
  T* scratch;  // 17 tiles with halos for the passes of a smoother, then one for each ear

  Agc(W& work, Arena& arena) : w(work) {
    int64_t most = 1;
    for (int64_t s = 0; s < w.shape.stages; ++s) {
      most = w.shape.iterations[s] > most ? w.shape.iterations[s] : most;
    }
    most_ = most;
    scratch = arena.take<T>((most + 3 + w.shape.ears) * w.haloed());
  }

  static int64_t record_size(const W& w) {
    return 2 * w.shape.stages * w.shape.ears * w.haloed();
  }
  Record record(T* base) const { return {base, w.shape.stages, w.shape.ears, w.haloed()}; }

  // Stages that update after `samples` samples in all; `samples` is a multiple of decimations[0].
  static int64_t stages_due(const Shape& s, int64_t samples) {
    int64_t period = 1, due = 0;
    for (; due < s.stages; ++due) {
      period *= s.decimations[due];
      if (samples % period) break;
    }
    return due;
  }

  // Updates the first `due` stages, then tells the cochlea. `base` of the record may be null.
  void update(int64_t due, Record record) {
    const Shape& s = w.shape;
    for (int64_t e = 0; e < s.ears; ++e) {
      if (record.base) {
        for (int64_t k = 0; k < s.stages; ++k) copy(record.before(k, e), w.memory(k, e));
      }
      for (int64_t k = 0; k < due; ++k) {
        T* const sum = w.sum(k, e);
        T* const next = k + 1 < s.stages ? w.sum(k + 1, e) : nullptr;
        const V decimation = splat<V>(T(s.decimations[k]));
        each([&](int64_t i) {
          const V mean = load<V>(sum + i) / decimation;
          if (next) store(next + i, load<V>(next + i) + mean);
          // The mean waits where the sum was until the slower stages are done.
          store(sum + i, mean);
        });
      }
      for (int64_t k = due - 1; k >= 0; --k) step(k, e, record);
      for (int64_t k = 0; k < due; ++k) std::memset(w.sum(k, e), 0, w.size * sizeof(T));
    }
    if (s.ears > 1) {
      for (int64_t k = 0; k < due; ++k) mix(k);
    }
    if (!s.open_loop) close_loop();
  }

  // Transpose. `bar` holds the cotangents of the state, as in the forward pass; `sums` tiles
  // without halos, [5 S + 1, E]; the memories in `w` are those after the update, then before it.
  void update_back(int64_t due, Record record, W& bar, Coefficients<V, kStyle>* car_sums,
                   int64_t sum_stride, T* sums) {
    const Shape& s = w.shape;
    const auto row = [&](int64_t r, int64_t e) { return sums + (r * s.ears + e) * w.size; };
    if (!s.open_loop) close_loop_back(bar, car_sums, sum_stride);
    if (s.ears > 1) {
      for (int64_t k = 0; k < due; ++k) mix_back(k, record, bar, row);
    }
    for (int64_t e = 0; e < s.ears; ++e) {
      for (int64_t k = 0; k < due; ++k) {
        T *const memory_bar = bar.memory(k, e), *const target_bar = bar.sum(k, e);
        T* const keep = pass(most_ + 2);  // target_bar: its place still holds that of the sum
        const T epsilon = w.agc_row(kEpsilon * s.stages + k, e);
        T* const moved_bar = smooth_back(k, e, record, memory_bar, row);
        T *const eps_sum = row(kEpsilon * s.stages + k, e), *const before = record.before(k, e);
        T* const target = record.target(k, e);
        each([&](int64_t i) {
          const V m = load<V>(moved_bar + i), toward = m * splat<V>(epsilon);
          const V distance = load<V>(target + i) - load<V>(before + i);
          store(eps_sum + i, fma(m, distance, load<V>(eps_sum + i)));
          store(memory_bar + i, m - toward);
          store(keep + i, toward);
        });
        if (k + 1 < s.stages) {
          T *const gain_sum = row(kAgcStageRows * s.stages, e), *const slower_bar = bar.memory(k + 1, e);
          const T* const slower = after_smoothing(k + 1, e, due, record);
          const V gain = splat<V>(w.stage_gain(e));
          each([&](int64_t i) {
            const V b = load<V>(keep + i);
            store(gain_sum + i, fma(b, load<V>(slower + i), load<V>(gain_sum + i)));
            store(slower_bar + i, fma(gain, b, load<V>(slower_bar + i)));
          });
        }
        std::memcpy(target_bar, keep, w.size * sizeof(T));
      }
      // bar.sum(k) now holds the cotangent of what the target took from the sum's mean.
      for (int64_t k = due - 1; k >= 0; --k) {
        T* const sum_bar = bar.sum(k, e);
        const T* const next = k + 1 < s.stages ? bar.sum(k + 1, e) : nullptr;
        const V decimation = splat<V>(T(s.decimations[k]));
        each([&](int64_t i) {
          V b = load<V>(sum_bar + i);
          if (next) b += load<V>(next + i);
          store(sum_bar + i, b / decimation);
        });
        copy(w.memory(k, e), record.before(k, e));
      }
    }
  }

 private:
  int64_t most_;  // passes of any smoother

  T* pass(int64_t i) const { return scratch + i * w.haloed() + L::kHalo; }
  T* of_ear(int64_t e) const { return pass(most_ + 3 + e); }
  void copy(T* to, const T* from) const { std::memcpy(to, from, w.size * sizeof(T)); }

  template <class Body>
  HYBRID_INLINE void each(Body&& body) const {
    for (int64_t i = 0; i < w.size; i += kLanes) body(i);
  }

  Smoother<L> smoother(int64_t k, int64_t e) const {
    const int64_t stages = w.shape.stages;
    return {w.shape.channels,
            w.size,
            w.agc_row(kLow * stages + k, e),
            w.agc_row(kMiddle * stages + k, e),
            w.agc_row(kHigh * stages + k, e),
            w.shape.taps[k] == 5};
  }

  void step(int64_t k, int64_t e, Record record) {
    const V epsilon = splat<V>(w.agc_row(kEpsilon * w.shape.stages + k, e));
    const V gain = splat<V>(w.stage_gain(e));
    T *const memory = w.memory(k, e), *const mean = w.sum(k, e);
    const T* const slower = k + 1 < w.shape.stages ? w.memory(k + 1, e) : nullptr;
    T* const target = record.base ? record.target(k, e) : nullptr;
    T *from = pass(0), *to = pass(1);
    each([&](int64_t i) {
      V x = load<V>(mean + i);
      if (slower) x = fma(gain, load<V>(slower + i), x);
      if (target) store(target + i, x);
      const V m = load<V>(memory + i);
      store(from + i, fma(epsilon, x - m, m));
    });
    const Smoother<L> smooth = smoother(k, e);
    for (int64_t n = 0; n < w.shape.iterations[k]; ++n) {
      smooth.pass(from, to);
      T* const swap = from;
      from = to;
      to = swap;
    }
    copy(memory, from);
  }

  // The memory of stage k before the ears are mixed; in a scratch tile if the stage was due.
  const T* after_smoothing(int64_t k, int64_t e, int64_t due, Record record) {
    if (k >= due) return record.before(k, e);
    return replay(k, e, record);
  }

  // Runs the smoother again; pass(n) is what its n-th pass read, the result the last.
  T* replay(int64_t k, int64_t e, Record record) {
    const V epsilon = splat<V>(w.agc_row(kEpsilon * w.shape.stages + k, e));
    const T *const before = record.before(k, e), *const target = record.target(k, e);
    T* const first = pass(0);
    each([&](int64_t i) {
      const V m = load<V>(before + i);
      store(first + i, fma(epsilon, load<V>(target + i) - m, m));
    });
    const Smoother<L> smooth = smoother(k, e);
    const int64_t passes = w.shape.iterations[k];
    for (int64_t n = 0; n < passes; ++n) smooth.pass(pass(n), pass(n + 1));
    return pass(passes);
  }

  template <class Row>
  T* smooth_back(int64_t k, int64_t e, Record record, const T* memory_bar, Row&& row) {
    const int64_t stages = w.shape.stages, passes = w.shape.iterations[k];
    replay(k, e, record);
    const Smoother<L> smooth = smoother(k, e);
    T *bar = pass(most_ + 1), *other = pass(most_ + 2);
    copy(bar, memory_bar);
    for (int64_t n = passes - 1; n >= 0; --n) {
      smooth.back(pass(n), bar, other, row(kLow * stages + k, e), row(kMiddle * stages + k, e),
                  row(kHigh * stages + k, e));
      T* const swap = bar;
      bar = other;
      other = swap;
    }
    return bar;
  }

  void mix(int64_t k) {
    T* const mean = pass(0);
    mean_of_ears(mean, [&](int64_t e) { return w.memory(k, e); });
    for (int64_t e = 0; e < w.shape.ears; ++e) {
      const V rate = splat<V>(w.agc_row(kMix * w.shape.stages + k, e));
      T* const memory = w.memory(k, e);
      each([&](int64_t i) {
        const V m = load<V>(memory + i);
        store(memory + i, fma(rate, load<V>(mean + i) - m, m));
      });
    }
  }

  template <class Row>
  void mix_back(int64_t k, Record record, W& bar, Row&& row) {
    const int64_t ears = w.shape.ears, stages = w.shape.stages;
    for (int64_t e = 0; e < ears; ++e) copy(of_ear(e), replay(k, e, record));
    T *const mean = pass(0), *const mean_bar = pass(1);
    mean_of_ears(mean, [&](int64_t e) { return of_ear(e); });
    std::memset(mean_bar, 0, w.size * sizeof(T));
    for (int64_t e = 0; e < ears; ++e) {
      const V rate = splat<V>(w.agc_row(kMix * stages + k, e));
      T *const memory_bar = bar.memory(k, e), *const sum = row(kMix * stages + k, e);
      T* const memory = of_ear(e);
      each([&](int64_t i) {
        const V b = load<V>(memory_bar + i), moved = b * rate;
        const V distance = load<V>(mean + i) - load<V>(memory + i);
        store(sum + i, fma(b, distance, load<V>(sum + i)));
        store(mean_bar + i, load<V>(mean_bar + i) + moved);
        store(memory_bar + i, b - moved);
      });
    }
    const V share = splat<V>(T(1) / T(ears));
    for (int64_t e = 0; e < ears; ++e) {
      T* const memory_bar = bar.memory(k, e);
      each([&](int64_t i) {
        store(memory_bar + i, fma(share, load<V>(mean_bar + i), load<V>(memory_bar + i)));
      });
    }
  }

  template <class Memory>
  void mean_of_ears(T* mean, Memory&& memory) const {
    const V share = splat<V>(T(1) / T(w.shape.ears));
    each([&](int64_t i) {
      V total = load<V>(memory(0) + i);
      for (int64_t e = 1; e < w.shape.ears; ++e) total += load<V>(memory(e) + i);
      store(mean + i, total * share);
    });
  }

  // Aims undamping and gain at what the fastest stage asks for, one block from now.
  void close_loop() {
    const V size = splat<V>(T(w.shape.decimations[0]));
    for (int64_t e = 0; e < w.shape.ears; ++e) {
      const T* const level = w.memory(0, e);
      for (int64_t p = 0; p < w.positions; ++p) {
        const Coefficients<V, kStyle> k = widen<V>(w.car_ihc[e * w.positions + p]);
        auto& cell = w.cells[e * w.positions + p];
        const V u = (splat<V>(1) - load<V>(level + p * kLanes)) * k.ohc_health;
        const V gain = fma(fma(k.gain_quadratic, u, k.gain_linear), u, k.gain_constant);
        cell.undamping_step = fms(k.undamping_range, u, cell.undamping) / size;
        cell.gain_step = (gain - cell.gain) / size;
      }
    }
  }

  void close_loop_back(W& bar, Coefficients<V, kStyle>* sums, int64_t stride) {
    const V size = splat<V>(T(w.shape.decimations[0]));
    for (int64_t e = 0; e < w.shape.ears; ++e) {
      const T* const level = w.memory(0, e);
      T* const level_bar = bar.memory(0, e);
      for (int64_t p = 0; p < w.positions; ++p) {
        const int64_t at = e * w.positions + p;
        const Coefficients<V, kStyle> k = widen<V>(w.car_ihc[at]);
        auto& a = bar.cells[at];
        auto& g = *reinterpret_cast<Coefficients<V, kStyle>*>(reinterpret_cast<V*>(sums) +
                                                              at * stride);
        const V left = splat<V>(1) - load<V>(level + p * kLanes), u = left * k.ohc_health;
        const V undamping_bar = a.undamping_step / size, gain_bar = a.gain_step / size;
        a.undamping_step = a.gain_step = splat<V>(0);
        a.undamping -= undamping_bar;
        a.gain -= gain_bar;
        g.undamping_range = fma(undamping_bar, u, g.undamping_range);
        const V gain_bar_u = gain_bar * u;
        g.gain_quadratic = fma(gain_bar_u, u, g.gain_quadratic);
        g.gain_linear += gain_bar_u;
        g.gain_constant += gain_bar;
        const V slope = fma(k.gain_quadratic + k.gain_quadratic, u, k.gain_linear);
        const V u_bar = fma(undamping_bar, k.undamping_range, gain_bar * slope);
        g.ohc_health = fma(u_bar, left, g.ohc_health);
        store(level_bar + p * kLanes, fnma(u_bar, k.ohc_health, load<V>(level_bar + p * kLanes)));
      }
    }
  }
};

}  // namespace HYBRID_ISA
}  // namespace carfac
