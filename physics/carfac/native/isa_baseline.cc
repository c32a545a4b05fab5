// Exists to compile the kernels for every processor of the architecture.
#define HYBRID_ISA baseline
#include "kernels.h"

namespace carfac {
extern const Kernels<float> kBaselineFloat = baseline::kernels<float, 4>();
extern const Kernels<double> kBaselineDouble = baseline::kernels<double, 2>();
}  // namespace carfac
