// Exists to give the kernels vectors: a fixed number of floats or doubles, and a fused multiply-add
// that is fused for all of them or for none, so that results do not depend on how lanes are filled.
//
// Included once per instruction set, in a namespace of its own (HYBRID_ISA): two copies of one
// template compiled for different processors must never be merged by the linker.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define HYBRID_INLINE inline __attribute__((always_inline))

namespace carfac {
namespace HYBRID_ISA {

template <class T, int kLanes>
struct VectorOf {
  typedef T type __attribute__((vector_size(sizeof(T) * kLanes)));
};
template <class T, int kLanes>
using Vector = typename VectorOf<T, kLanes>::type;

template <class V>
using ElementOf = std::remove_cv_t<std::remove_reference_t<decltype(std::declval<V&>()[0])>>;

// x in every lane. (Lane by lane, or through memory, compilers make a chain of shuffles of it.)
template <class V>
HYBRID_INLINE V splat(ElementOf<V> x) {
  return x - V{};  // which is x whatever x is, so that only the broadcast is left
}

// a * b + c and c - a * b, rounded once where the instruction set can, twice where it cannot.
#if defined(__FMA__)
HYBRID_INLINE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
HYBRID_INLINE double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
#define HYBRID_FMA(V, prefix, suffix)                                                        \
  HYBRID_INLINE V fma(V a, V b, V c) { return (V)prefix##_fmadd_##suffix(a, b, c); }         \
  HYBRID_INLINE V fnma(V a, V b, V c) { return (V)prefix##_fnmadd_##suffix(a, b, c); }       \
  HYBRID_INLINE V fms(V a, V b, V c) { return (V)prefix##_fmsub_##suffix(a, b, c); }
typedef Vector<float, 4> F4;
typedef Vector<float, 8> F8;
typedef Vector<double, 2> D2;
typedef Vector<double, 4> D4;
HYBRID_FMA(F4, _mm, ps)
HYBRID_FMA(F8, _mm256, ps)
HYBRID_FMA(D2, _mm, pd)
HYBRID_FMA(D4, _mm256, pd)
#if defined(__AVX512F__)
typedef Vector<float, 16> F16;
typedef Vector<double, 8> D8;
HYBRID_FMA(F16, _mm512, ps)
HYBRID_FMA(D8, _mm512, pd)
#endif
#undef HYBRID_FMA
#else
template <class V>
HYBRID_INLINE V fma(V a, V b, V c) {
  return a * b + c;
}
template <class V>
HYBRID_INLINE V fnma(V a, V b, V c) {
  return c - a * b;
}
template <class V>
HYBRID_INLINE V fms(V a, V b, V c) {
  return a * b - c;
}
#endif

// max(x, 0); what is not a number stays so.
template <class V>
HYBRID_INLINE V not_below_zero(V x) {
  const V zero{};
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64) {
    if constexpr (sizeof(ElementOf<V>) == 4) {
      return (V)_mm512_max_ps((__m512)zero, (__m512)x);
    } else {
      return (V)_mm512_max_pd((__m512d)zero, (__m512d)x);
    }
  } else
#endif
#if defined(__AVX__)
  if constexpr (sizeof(V) == 32) {
    if constexpr (sizeof(ElementOf<V>) == 4) {
      return (V)_mm256_max_ps((__m256)zero, (__m256)x);
    } else {
      return (V)_mm256_max_pd((__m256d)zero, (__m256d)x);
    }
  } else
#endif
  {
    return zero > x ? zero : x;
  }
}

template <class V>
HYBRID_INLINE V load(const ElementOf<V>* from) {
  V v;
  std::memcpy(&v, from, sizeof(V));
  return v;
}
template <class V>
HYBRID_INLINE void store(ElementOf<V>* to, V v) {
  std::memcpy(to, &v, sizeof(V));
}

// 1 / (1 + exp(-x)), to a few units in the last place.
template <class V>
HYBRID_INLINE V sigmoid(V x) {
  typedef ElementOf<V> T;
  constexpr bool kSingle = sizeof(T) == 4;
  typedef std::conditional_t<kSingle, int32_t, int64_t> I;
  typedef Vector<I, sizeof(V) / sizeof(T)> VI;
  // exp(-x) = 2^n exp(r) with |r| <= ln(2) / 2; beyond the clip the result is 0 or 1 anyway.
  const T limit = kSingle ? T(80) : T(700);
  x = -x;
  x = x > limit ? splat<V>(limit) : x;
  x = x < -limit ? splat<V>(-limit) : x;
  const T magic = kSingle ? T(12582912.0) : T(6755399441055744.0);  // 1.5 * 2^23, 2^52: rounds
  const V shifted = fma(x, splat<V>(T(1.4426950408889634)), splat<V>(magic));
  const V n = shifted - splat<V>(magic);
  // ln 2 in two parts, the first short enough that n times it is exact.
  V r = fnma(n, splat<V>(kSingle ? T(0.693359375) : T(6.93147180369123816490e-01)), x);
  r = fnma(n, splat<V>(kSingle ? T(-2.12194440054690583e-4) : T(1.90821492927058770002e-10)), r);
  // Taylor's series: 1/14! (0.3466)^14 is below 2^-57, 1/8! (0.3466)^8 below 2^-27.
  constexpr int kTerms = kSingle ? 8 : 14;
  T inverse_factorial[kTerms + 1] = {T(1)};
  for (int i = 1; i <= kTerms; ++i) inverse_factorial[i] = inverse_factorial[i - 1] / T(i);
  V e = splat<V>(inverse_factorial[kTerms]);
#pragma GCC unroll 16
  for (int i = kTerms - 1; i >= 0; --i) e = fma(e, r, splat<V>(inverse_factorial[i]));
  constexpr int kMantissa = kSingle ? 23 : 52;
  VI power, bits;
  std::memcpy(&power, &shifted, sizeof(V));  // its low bits are n in two's complement
  std::memcpy(&bits, &e, sizeof(V));
  bits = bits + (power << kMantissa);
  std::memcpy(&e, &bits, sizeof(V));
  return T(1) / (T(1) + e);
}

// Copies a struct of vectors, one by one: compilers keep the copy in registers then, where of the
// whole they would make a block move.
template <class V, class S>
HYBRID_INLINE void copy_each(S& to, const S& from) {
  V* const t = reinterpret_cast<V*>(&to);
  const V* const f = reinterpret_cast<const V*>(&from);
#pragma GCC unroll 32
  for (size_t i = 0; i < sizeof(S) / sizeof(V); ++i) t[i] = f[i];
}

namespace internal {
template <int kHalf, int kLanes, class V, int... i>
HYBRID_INLINE void swap_blocks(V& a, V& b, std::integer_sequence<int, i...>) {
  const V low = __builtin_shufflevector(a, b, ((i & kHalf) ? kLanes + i - kHalf : i)...);
  const V high = __builtin_shufflevector(a, b, ((i & kHalf) ? kLanes + i : i + kHalf)...);
  a = low;
  b = high;
}

template <int kHalf, int kLanes, class V>
HYBRID_INLINE void transpose_step(V* rows) {
  if constexpr (kHalf >= 1) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      if (!(i & kHalf)) {
        swap_blocks<kHalf, kLanes>(rows[i], rows[i + kHalf],
                                   std::make_integer_sequence<int, kLanes>());
      }
    }
    transpose_step<kHalf / 2, kLanes>(rows);
  }
}
}  // namespace internal

// Transposes a square of kLanes vectors in place.
template <int kLanes, class V>
HYBRID_INLINE void transpose(V (&rows)[kLanes]) {
  internal::transpose_step<kLanes / 2, kLanes>(rows);
}

}  // namespace HYBRID_ISA
}  // namespace carfac
