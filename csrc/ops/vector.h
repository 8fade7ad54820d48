// Vectors of floats as wide as the tier's registers, by the compiler's own vector types.
//
// Included by translation units that are compiled once for each tier; everything has internal
// linkage, so that no code of one tier is linked into another.
#pragma once

#include <cstdint>
#include <cstring>

#include "base/half.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace whet {
namespace {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

typedef float Vector __attribute__((vector_size(4 * kLanes)));
typedef int32_t Integers __attribute__((vector_size(4 * kLanes)));

inline Vector load(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

inline void store(float* to, Vector v) { std::memcpy(to, &v, sizeof v); }

// The first `count` lanes; the others are `rest`.
inline Vector load_some(const float* from, int count, float rest = 0.0f) {
  float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = i < count ? from[i] : rest;
  return load(lanes);
}

inline void store_some(float* to, Vector v, int count) {
  for (int i = 0; i < count; ++i) to[i] = v[i];
}

// As many float16 numbers.
inline Vector load_f16(const uint16_t* from) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vector>(
      _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
#elif defined(__F16C__)
  return reinterpret_cast<Vector>(
      _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#elif defined(__aarch64__)
  return reinterpret_cast<Vector>(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from))));
#else
  float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = f16_to_f32(from[i]);
  return load(lanes);
#endif
}

inline Vector all(float x) { return Vector{} + x; }

// a · b + c, rounded once where the tier can.
inline Vector fused(Vector a, Vector b, Vector c) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vector>(_mm512_fmadd_ps(a, b, c));
#elif defined(__FMA__)
  return reinterpret_cast<Vector>(_mm256_fmadd_ps(a, b, c));
#elif defined(__aarch64__)
  return reinterpret_cast<Vector>(vfmaq_f32(c, a, b));
#else
  return a * b + c;
#endif
}

inline Vector larger(Vector a, Vector b) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vector>(_mm512_max_ps(a, b));
#elif defined(__AVX__)
  return reinterpret_cast<Vector>(_mm256_max_ps(a, b));
#else
  return a > b ? a : b;
#endif
}
inline Vector smaller(Vector a, Vector b) { return a < b ? a : b; }
inline Vector magnitude(Vector a) {
  return reinterpret_cast<Vector>(reinterpret_cast<Integers>(a) & 0x7fffffff);
}

// Sums by halves, so that the order does not depend on how a compiler unrolls.
inline float total(Vector v) {
#if defined(__AVX512F__)
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
#else
  float lanes[kLanes];
  store(lanes, v);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
#endif
}

inline float largest(Vector v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps(v);
#else
  float lanes[kLanes];
  store(lanes, v);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i)
      if (lanes[i + half] > lanes[i]) lanes[i] = lanes[i + half];
  return lanes[0];
#endif
}

// e^x to about one unit in the last place: 2^n times a polynomial of what rounding x·log2(e) left.
// Minus infinity gives exactly 0; what is too large for a float, infinity or e^88.
inline Vector exponential(Vector x) {
#if defined(__AVX512F__)
  const Vector bounded = larger(x, all(-200.0f));
  const Vector n = reinterpret_cast<Vector>(_mm512_roundscale_ps(bounded * 1.44269504f, 8));
#else
  const Vector bounded = smaller(larger(x, all(-87.33654f)), all(88.0f));
  const float magic = 12582912.0f;  // 1.5 · 2^23: adding it rounds to an integer
  const Vector shifted = fused(bounded, all(1.44269504f), all(magic));
  const Vector n = shifted - magic;
#endif
  Vector r = fused(n, all(-0.693359375f), bounded);
  r = fused(n, all(2.12194440e-4f), r);
  Vector p = all(1.9875691500e-4f);
  p = fused(p, r, all(1.3981999507e-3f));
  p = fused(p, r, all(8.3334519073e-3f));
  p = fused(p, r, all(4.1665795894e-2f));
  p = fused(p, r, all(1.6666665459e-1f));
  p = fused(p, r, all(5.0000001201e-1f));
  p = fused(p * r, r, r) + 1.0f;
#if defined(__AVX512F__)
  return reinterpret_cast<Vector>(_mm512_scalef_ps(p, n));
#else
  const Integers power = (reinterpret_cast<Integers>(shifted) - 0x4b400000 + 127) << 23;
  const Vector result = p * reinterpret_cast<Vector>(power);
  return x < -87.33654f ? Vector{} : result;
#endif
}

inline Vector tangent(Vector x) {  // hyperbolic
  // Near zero 1 - 2 / (e^2x + 1) cancels: there its series does not.
  const Vector far = 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f);
  const Vector square = x * x;
  const Vector series = -0.333333333f + square * (0.133333333f + square * -0.0539682540f);
  const Vector near = x * (1.0f + square * series);
  return magnitude(x) < 0.1f ? near : far;
}

// erf by Abramowitz and Stegun 7.1.26: off by 1.5e-7 at most.
inline Vector error_function(Vector x) {
  const Vector t = 1.0f / (1.0f + 0.3275911f * magnitude(x));
  Vector p = all(1.061405429f);
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const Vector y = 1.0f - p * t * exponential(-x * x);
  return x < 0.0f ? -y : y;
}

}  // namespace
}  // namespace whet
