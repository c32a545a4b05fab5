// Exists to spread the gain control over channels: one pass of 3 or 5 taps, and its transpose.
#pragma once

#include "lanes.h"

namespace carfac {
namespace HYBRID_ISA {

// Past the ends, as google/carfac has it: one channel past an end reads the end; two past read the
// end and its neighbour, in the order in which channels near the end reach for them. At the base
// that asks element -1 for two values, hence the repair of channel 1.
template <class L>
struct Smoother {
  typedef typename L::T T;
  typedef typename L::V V;
  static constexpr int64_t kStep = L::kStep;

  int64_t channels, size;
  T low, middle, high;
  bool five;

  void fill_ends(T* x) const {
    for (int64_t l = 0; l < kStep; ++l) {
      T* const last = x + (channels - 1) * kStep + l;
      x[l - kStep] = x[l - 2 * kStep] = x[l];
      last[kStep] = last[0];
      last[2 * kStep] = last[-kStep];
    }
  }

  // y = smoothed x; both with halos, that of x is filled in.
  void pass(T* x, T* y) const {
    fill_ends(x);
    const V a = splat<V>(low), b = splat<V>(middle), c = splat<V>(high);
    for (int64_t i = 0; i < size; i += L::kLanes) {
      V below = load<V>(x + i - kStep), above = load<V>(x + i + kStep);
      if (five) {
        below += load<V>(x + i - 2 * kStep);
        above += load<V>(x + i + 2 * kStep);
      }
      store(y + i, fma(c, above, fma(b, load<V>(x + i), a * below)));
    }
    if (!five) return;
    for (int64_t l = 0; l < kStep; ++l) {
      const T below = x[l] + x[kStep + l];
      const T above = x[2 * kStep + l] + x[3 * kStep + l];
      y[kStep + l] = fma(high, above, fma(middle, x[kStep + l], low * below));
    }
  }

  // Given y_bar, adds to the sums of the weights' gradients and leaves x_bar in `x_bar`. The halos
  // of x, as `pass` left them, are read; those of y_bar are overwritten.
  void back(const T* x, T* y_bar, T* x_bar, T* low_bar, T* middle_bar, T* high_bar) const {
    const int64_t n = channels * kStep;
    for (int64_t i = -2 * kStep; i < 0; ++i) y_bar[i] = 0;
    for (int64_t i = n; i < n + 2 * kStep || i < size; ++i) y_bar[i] = 0;
    const V a = splat<V>(low), b = splat<V>(middle), c = splat<V>(high);
    for (int64_t i = 0; i < size; i += L::kLanes) {
      const V bar = load<V>(y_bar + i);
      V below = load<V>(x + i - kStep), above = load<V>(x + i + kStep);
      V from_above = load<V>(y_bar + i + kStep), from_below = load<V>(y_bar + i - kStep);
      if (five) {
        below += load<V>(x + i - 2 * kStep);
        above += load<V>(x + i + 2 * kStep);
        from_above += load<V>(y_bar + i + 2 * kStep);
        from_below += load<V>(y_bar + i - 2 * kStep);
      }
      store(low_bar + i, fma(bar, below, load<V>(low_bar + i)));
      store(middle_bar + i, fma(bar, load<V>(x + i), load<V>(middle_bar + i)));
      store(high_bar + i, fma(bar, above, load<V>(high_bar + i)));
      store(x_bar + i, fma(c, from_below, fma(b, bar, a * from_above)));
    }
    for (int64_t l = 0; l < kStep; ++l) {
      const T *const bar = y_bar + l, *const bar_end = y_bar + n - kStep + l;
      T *const out = x_bar + l, *const out_end = x_bar + n - kStep + l;
      out[0] += low * bar[0];
      out_end[0] += high * bar_end[0];
      if (!five) continue;
      low_bar[kStep + l] += bar[kStep] * (x[kStep + l] - x[l]);
      out[0] += low * bar[0];
      out[kStep] += low * bar[kStep];
      out_end[0] += high * bar_end[-kStep];
      out_end[-kStep] += high * bar_end[0];
    }
  }
};

}  // namespace HYBRID_ISA
}  // namespace carfac
