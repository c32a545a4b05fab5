// Exists to hold what one task works on: coefficients and state, brought into lanes.
#pragma once

#include "car.h"
#include "ihc.h"
#include "lanes.h"
#include "synapse.h"

namespace carfac {
namespace HYBRID_ISA {

template <class E, int kStyle>
struct Coefficients : CarCoefficients<E>, IhcCoefficients<E, kStyle> {};
// What changes at every sample (or, in a gradient, its cotangent), but for the synapse.
template <class E, int kStyle>
struct Cell : CarState<E>, IhcState<E, kStyle> {};

template <class V, int kStyle>
HYBRID_INLINE const Coefficients<V, kStyle>& widen(const Coefficients<V, kStyle>& narrow) {
  return narrow;
}
template <class V, int kStyle>
HYBRID_INLINE Coefficients<V, kStyle> widen(const Coefficients<ElementOf<V>, kStyle>& narrow) {
  Coefficients<V, kStyle> wide;
  const ElementOf<V>* from = reinterpret_cast<const ElementOf<V>*>(&narrow);
  V* to = reinterpret_cast<V*>(&wide);
#pragma GCC unroll 32
  for (size_t i = 0; i < sizeof(narrow) / sizeof(*from); ++i) to[i] = splat<V>(from[i]);
  return wide;
}

template <class V>
HYBRID_INLINE const CarCoefficients<V>& widen(const CarCoefficients<V>& narrow) {
  return narrow;
}
template <class V>
HYBRID_INLINE CarCoefficients<V> widen(const CarCoefficients<ElementOf<V>>& narrow) {
  CarCoefficients<V> wide;
  const ElementOf<V>* from = reinterpret_cast<const ElementOf<V>*>(&narrow);
  V* to = reinterpret_cast<V*>(&wide);
#pragma GCC unroll 16
  for (int64_t i = 0; i < kCarRows; ++i) to[i] = splat<V>(from[i]);
  return wide;
}

template <class L, int kStyle>
struct Work {
  typedef typename L::T T;
  typedef typename L::V V;
  typedef typename L::K K;
  static constexpr int64_t kRows = sizeof(Coefficients<float, kStyle>) / sizeof(float);
  static constexpr int64_t kCellRows = sizeof(Cell<float, kStyle>) / sizeof(float);
  static constexpr bool kSynapse = kStyle == kTwoCapWithSyn;

  Shape shape;
  Task task;
  int64_t positions, size;  // vectors and numbers in a tile
  int64_t classes;
  const T* agc;                      // [5 S + 2, E]
  Coefficients<K, kStyle>* car_ihc;  // [E, positions]
  SynapseCoefficients<K>* synapse;   // [E, positions]
  ClassCoefficients<K>* of_class;    // [E, positions, K]
  Cell<V, kStyle>* cells;            // [E, positions]
  V* fibres;                         // [E, positions, 2 K]
  T* agc_state;                      // [2 S, E], tiles with halos
  T* tile;                           // for moving rows in and out

  Work(const Shape& s, Task t, Arena& arena)
      : shape(s), task(t), positions(L::positions(s.channels)), size(positions * L::kLanes),
        classes(kSynapse ? s.classes : 0) {
    const int64_t n = s.ears * positions;
    car_ihc = arena.take<Coefficients<K, kStyle>>(n);
    synapse = arena.take<SynapseCoefficients<K>>(kSynapse ? n : 0);
    of_class = arena.take<ClassCoefficients<K>>(n * classes);
    cells = arena.take<Cell<V, kStyle>>(n);
    fibres = arena.take<V>(n * 2 * classes);
    agc_state = arena.take<T>(2 * s.stages * s.ears * haloed());
    tile = arena.take<T>(size);
  }

  int64_t haloed() const { return size + 2 * L::kHalo; }
  T* memory(int64_t stage, int64_t ear) const {
    return agc_state + (stage * shape.ears + ear) * haloed() + L::kHalo;
  }
  T* sum(int64_t stage, int64_t ear) const { return memory(shape.stages + stage, ear); }
  const T& agc_row(int64_t row, int64_t ear) const { return agc[row * shape.ears + ear]; }
  const T& stage_gain(int64_t ear) const { return agc_row(kAgcStageRows * shape.stages, ear); }
  const T& detect_scale(int64_t ear) const {
    return agc_row(kAgcStageRows * shape.stages + 1, ear);
  }

  void read_coefficients(const T* rows, const T* agc_rows) {
    agc = agc_rows;
    for (int64_t e = 0; e < shape.ears; ++e) {
      const T* const of_ear = rows + e * shape.channels;
      const int64_t at = e * positions;
      for (int64_t r = 0; r < kRows; ++r) spread(of_ear, r, car_ihc + at, kRows, r);
      if (!kSynapse) continue;
      for (int64_t r = 0; r < kSynapseRows; ++r) {
        spread(of_ear, kRows + r, synapse + at, kSynapseRows, r);
      }
      for (int64_t r = 0; r < kSynapseClassRows; ++r) {
        for (int64_t c = 0; c < classes; ++c) {
          spread(of_ear, kRows + kSynapseRows + r * classes + c, of_class + at * classes,
                 kSynapseClassRows * classes, c * kSynapseClassRows + r);
        }
      }
    }
  }

  // Calls visit(row, first vector or null, vectors from one position to the next, halo tile) for
  // each row of the state of an ear, in the order of the caller's arrays.
  template <class Visit>
  void each_row(int64_t ear, Visit&& visit) {
    const int64_t at = ear * positions;
    int64_t row = 0;
    V* const cell = reinterpret_cast<V*>(cells + at);
    for (int64_t r = 0; r < kCellRows; ++r) visit(row++, cell + r, kCellRows, (T*)nullptr);
    V* const fibre = fibres + at * 2 * classes;
    for (int64_t r = 0; r < 2 * classes; ++r) visit(row++, fibre + r, 2 * classes, (T*)nullptr);
    for (int64_t s = 0; s < 2 * shape.stages; ++s) visit(row++, (V*)nullptr, 0, memory(s, ear));
  }

  // `rows` is [B, V, E, C].
  void read_state(const T* rows) {
    const int64_t row = shape.ears * shape.channels, clip = shape.state_rows * row;
    for (int64_t e = 0; e < shape.ears; ++e) {
      each_row(e, [&](int64_t r, V* first, int64_t stride, T* flat) {
        const T* const from = rows + task.first * clip + r * row + e * shape.channels;
        T* const to = flat ? flat : tile;
        L::read(to, from, clip, task.count, shape.channels);
        if (flat) return;
        for (int64_t p = 0; p < positions; ++p) first[p * stride] = load<V>(to + p * L::kLanes);
      });
    }
  }

  void write_state(T* rows) {
    const int64_t row = shape.ears * shape.channels, clip = shape.state_rows * row;
    for (int64_t e = 0; e < shape.ears; ++e) {
      each_row(e, [&](int64_t r, V* first, int64_t stride, T* flat) {
        T* const to = rows + task.first * clip + r * row + e * shape.channels;
        if (!flat) {
          for (int64_t p = 0; p < positions; ++p) store(tile + p * L::kLanes, first[p * stride]);
        }
        L::write(flat ? flat : tile, to, clip, task.count, shape.channels);
      });
    }
  }

 private:
  // Puts row `row` of one ear's coefficients into field `field` of each position's struct.
  template <class S>
  void spread(const T* of_ear, int64_t row, S* first, int64_t fields, int64_t field) {
    const T* const from = of_ear + row * shape.ears * shape.channels;
    K* const to = reinterpret_cast<K*>(first) + field;
    if constexpr (L::kClips) {
      for (int64_t c = 0; c < shape.channels; ++c) to[c * fields] = from[c];
    } else {
      L::read(tile, from, 0, 1, shape.channels);
      for (int64_t p = 0; p < positions; ++p) to[p * fields] = load<V>(tile + p * L::kLanes);
    }
  }
};

}  // namespace HYBRID_ISA
}  // namespace carfac
