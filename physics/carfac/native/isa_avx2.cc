// Exists to compile the kernels for processors with AVX2 and fused multiply-add.
#if defined(__AVX2__) && defined(__FMA__)
#define HYBRID_ISA avx2
#include "kernels.h"

namespace carfac {
extern const Kernels<float> kAvx2Float = avx2::kernels<float, 8>();
extern const Kernels<double> kAvx2Double = avx2::kernels<double, 4>();
}  // namespace carfac
#endif
