// AVX-512 on bf16 numbers: the instructions, or what equals them where the processor has none.
//
// Included by the translation units of two tiers. That of `avx512bf16` has the instructions; that of
// `avx512` widens to float32. Sums differ in their last bits, and numbers below 2^-126 are zero to the
// instructions alone. Internal linkage throughout.
#pragma once

#include <immintrin.h>

#if defined(__AVX512BF16__)
#define WHET_AVX512 avx512bf16
#else
#define WHET_AVX512 avx512
#endif

namespace whet {
namespace {

#if defined(__AVX512BF16__)
// Add the products of pairs to sixteen sums, the second of each pair first.
[[gnu::always_inline]] inline __m512 add_pairs(__m512 sums, __m512bh a, __m512bh b) {
  return _mm512_dpbf16_ps(sums, a, b);
}

// Round to bf16, ties to even.
[[gnu::always_inline]] inline __m256i to_bf16(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

// The same of 32 numbers.
[[gnu::always_inline]] inline __m512i to_bf16(__m512 first, __m512 second) {
  return (__m512i)_mm512_cvtne2ps_pbh(second, first);
}
#else
[[gnu::always_inline]] inline __m512 second_of(__m512i pairs) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, upper));
}

[[gnu::always_inline]] inline __m512 first_of(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
}

[[gnu::always_inline]] inline __m512 add_pairs(__m512 sums, __m512bh a, __m512bh b) {
  sums = _mm512_fmadd_ps(second_of((__m512i)a), second_of((__m512i)b), sums);
  return _mm512_fmadd_ps(first_of((__m512i)a), first_of((__m512i)b), sums);
}

// Numbers rounded so that the upper words are bf16; a NaN stays one.
[[gnu::always_inline]] inline __m512i rounded_words(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i more = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
  const __mmask16 unordered = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(_mm512_add_epi32(bits, more), unordered, bits,
                              _mm512_set1_epi32(0x00400000));
}

[[gnu::always_inline]] inline __m256i to_bf16(__m512 x) {
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded_words(x), 16));
}

[[gnu::always_inline]] inline __m512i to_bf16(__m512 first, __m512 second) {
  const __m256i low = to_bf16(first), high = to_bf16(second);
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}
#endif

}  // namespace
}  // namespace whet
