// Exists to choose the kernels that this processor can run.
#pragma once

#include <vector>

#include "problem.h"

namespace carfac {

extern const Kernels<float> kBaselineFloat;
extern const Kernels<double> kBaselineDouble;
#if defined(HYBRID_WITH_AVX2)
extern const Kernels<float> kAvx2Float;
extern const Kernels<double> kAvx2Double;
#endif
#if defined(HYBRID_WITH_AVX512)
extern const Kernels<float> kAvx512Float, kAvx512WideFloat;
extern const Kernels<double> kAvx512Double, kAvx512WideDouble;
#endif

enum Isa : int64_t { kIsaBaseline = 0, kIsaAvx2 = 1, kIsaAvx512 = 2 };

// The best instruction set that was compiled and that the processor and its system have.
inline Isa best_isa() {
#if defined(HYBRID_WITH_AVX512)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx2") &&
      __builtin_cpu_supports("fma")) {
    return kIsaAvx512;
  }
#endif
#if defined(HYBRID_WITH_AVX2)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kIsaAvx2;
#endif
  return kIsaBaseline;
}

// Tables for an instruction set (negative: the best there is), the narrower first. What the
// processor lacks is never chosen.
template <class T>
std::vector<const Kernels<T>*> kernels_for(int64_t wanted) {
  const Isa best = best_isa();
  const int64_t isa = wanted < 0 || wanted > best ? best : wanted;
  constexpr bool single = sizeof(T) == 4;
  const auto pick = [](const auto& f, const auto& d) {
    if constexpr (single) {
      (void)d;
      return &f;
    } else {
      (void)f;
      return &d;
    }
  };
#if defined(HYBRID_WITH_AVX512)
  if (isa == kIsaAvx512) {
    return {pick(kAvx512Float, kAvx512Double), pick(kAvx512WideFloat, kAvx512WideDouble)};
  }
#endif
#if defined(HYBRID_WITH_AVX2)
  if (isa == kIsaAvx2) return {pick(kAvx2Float, kAvx2Double)};
#endif
  (void)isa;
  return {pick(kBaselineFloat, kBaselineDouble)};
}

}  // namespace carfac
