// Exists to compile the kernels for processors with AVX-512.
#if defined(__AVX512F__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define HYBRID_ISA avx512
#include "kernels.h"

namespace carfac {
extern const Kernels<float> kAvx512Float = avx512::kernels<float, 8>();
extern const Kernels<double> kAvx512Double = avx512::kernels<double, 4>();
extern const Kernels<float> kAvx512WideFloat = avx512::kernels<float, 16, false>();
}  // namespace carfac
#endif
