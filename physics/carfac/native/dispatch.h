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
extern const Kernels<double> kAvx512Double;
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

// The kernels of a plan: `narrow` for tasks by channel, `wide` (which may be the same) for others.
template <class T>
struct Choice {
  const Kernels<T>*narrow, *wide;
};

// Choices for an instruction set (negative: the best there is). What the processor lacks is never
// chosen.
inline std::vector<Choice<float>> choices(int64_t wanted, const float*) {
  const Isa best = best_isa();
  const int64_t isa = wanted < 0 || wanted > best ? best : wanted;
#if defined(HYBRID_WITH_AVX512)
  if (isa == kIsaAvx512) {
    return {{&kAvx512Float, &kAvx512Float}, {&kAvx512Float, &kAvx512WideFloat}};
  }
#endif
#if defined(HYBRID_WITH_AVX2)
  if (isa == kIsaAvx2) return {{&kAvx2Float, &kAvx2Float}};
#endif
  (void)isa;
  return {{&kBaselineFloat, &kBaselineFloat}};
}

inline std::vector<Choice<double>> choices(int64_t wanted, const double*) {
  const Isa best = best_isa();
  const int64_t isa = wanted < 0 || wanted > best ? best : wanted;
#if defined(HYBRID_WITH_AVX512)
  if (isa == kIsaAvx512) return {{&kAvx512Double, &kAvx512Double}};
#endif
#if defined(HYBRID_WITH_AVX2)
  if (isa == kIsaAvx2) return {{&kAvx2Double, &kAvx2Double}};
#endif
  (void)isa;
  return {{&kBaselineDouble, &kBaselineDouble}};
}

}  // namespace carfac
