// What the AVX-512 code of few and of many tokens share. Internal linkage throughout.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "linear/integer/planes.h"

namespace whet::integer {

constexpr int kFew = 16;  // halves up to which nothing is unpacked to memory
constexpr int kFewTogether = 8;   // and of many halves that are put together
constexpr int kManyTogether = 6;

int together_avx512(int count, int halves);
void multiply_few_avx512(const Weight& weight, const Input& input, int halves, const Output& out,
                         int first, int last);
void multiply_many_avx512(const Weight& weight, const Input& input, int halves, const Output& out,
                          std::byte* memory, int first, int last);
std::size_t scratch_avx512(const Weight& weight, int halves);

namespace {

static inline __m512i load(const uint8_t* at) { return _mm512_loadu_si512(at); }

static inline __m256i load_half(const uint8_t* at) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}

// Codes of 4 bits, a byte each.
static inline __m512i nibbles(__m256i pairs) {
  const __m512i wide = _mm512_cvtepu8_epi16(pairs);
  return _mm512_and_si512(_mm512_or_si512(wide, _mm512_slli_epi16(wide, 4)), _mm512_set1_epi8(15));
}

// The codes of a block of which some are stored, a vector a quad; the others stand for zero. In
// line: a call would take half as long again.
template <int Bits, int Quads>
[[gnu::always_inline]] static inline const uint8_t* expand(const uint8_t* masks, __m512i* codes) {
  const __m512i zero = _mm512_set1_epi8(static_cast<char>(1 << (width_of(Bits) - 1)));
  const uint8_t* at = masks + Quads * 8;
#pragma GCC unroll 8
  for (int q = 0; q < Quads; ++q) {
    uint64_t mask;
    std::memcpy(&mask, masks + q * 8, 8);
    const __m512i kept = width_of(Bits) == 8 ? load(at) : nibbles(load_half(at));
    codes[q] = _mm512_mask_expand_epi8(zero, _cvtu64_mask64(mask), kept);
    at += kept_bytes(Bits, static_cast<std::size_t>(_mm_popcnt_u64(mask)));
  }
  return at;
}

// The levels of mapped codes, four times; any bytes where codes are not.
template <int Coding>
static inline __m512i level_table(const Weight& weight) {
  if constexpr (!is_mapped(Coding)) return _mm512_setzero_si512();
  return _mm512_maskz_broadcast_i32x4(  // plain, gcc 12 warns of its own header
      0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(weight.levels)));
}

// The codes of a block of which all are stored, or the levels that they stand for.
template <int Coding, int Quads>
[[gnu::always_inline]] static inline void decode(const uint8_t* at, __m512i levels,
                                                 __m512i* codes) {
  unpack<Coding, Quads>(at, codes);
  if constexpr (is_mapped(Coding)) {
#pragma GCC unroll 8
    for (int q = 0; q < Quads; ++q) codes[q] = _mm512_shuffle_epi8(levels, codes[q]);
  }
}

static inline __m512 read_scales(const uint8_t* at, Scale kind) {
  switch (kind) {
    case Scale::bf16:
      return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_half(at)), 16));
    case Scale::f16:
      return _mm512_cvtph_ps(load_half(at));
    case Scale::f32:
      return _mm512_loadu_ps(at);
    default:  // an exponent; that of zero is 2^-127
      return _mm512_castsi512_ps(_mm512_max_epi32(
          _mm512_slli_epi32(
              _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))), 23),
          _mm512_set1_epi32(0x00400000)));
  }
}

// Adds the products of codes and the four inputs that all rows share. As an instruction by name:
// from the intrinsic gcc 12 makes a copy of the sums for each product.
static inline void add_products(__m512i& sums, __m512i codes, __m512i four) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(codes), "v"(four));
}
static inline void add_products(__m512i& sums, __m512i codes, const int8_t* x) {
  __asm__("vpdpbusd %2%{1to16%}, %1, %0"
          : "+v"(sums)
          : "v"(codes), "m"(*reinterpret_cast<const int32_t __attribute__((may_alias))*>(x)));
}

static inline __m512i read_zeros(const uint8_t* at) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}

static inline __m512i four_inputs(const int8_t* x) {
  int32_t word;
  std::memcpy(&word, x, 4);
  return _mm512_set1_epi32(word);
}

// Writes what a token has of a tile; `half` is the number of its first.
static inline void write(const Output& out, int half, int tile, int rows, __m512 sums) {
  float* y = out.y + static_cast<std::size_t>(half / out.halves) * out.stride + tile * kRows;
  const __mmask16 mask = static_cast<__mmask16>(0xffffu >> (kRows - std::min(rows, kRows)));
  if (out.accumulate) sums = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), sums);
  _mm512_mask_storeu_ps(y, mask, sums);
}

// What the minimum of a group is multiplied by: the sum of a step's inputs.
static inline float input_sum(const Batch& batch, int half) {
  return batch.scales[half] * static_cast<float>(-batch.sums[half]);
}

// A step's sum from those of its halves.
static inline __m512i put_together(__m512i upper, __m512i lower) {
  return _mm512_add_epi32(_mm512_slli_epi32(upper, 8), lower);
}

// The zero points' part of a step's sums: −z·Σx.
template <int Bits, bool Affine>
static inline __m512i begun(__m512i zeros, int32_t negated) {
  if constexpr (Affine) return _mm512_mullo_epi32(zeros, _mm512_set1_epi32(negated));
  return _mm512_slli_epi32(_mm512_set1_epi32(negated), value_width(Bits) - 1);
}

// Adds the products of the codes of a block to the sums of the tokens.
template <int Quads, int Tokens>
[[gnu::always_inline]] static inline void add_decoded(const __m512i* codes, const int8_t* x,
                                                      __m512i* sums) {
#pragma GCC unroll 8
  for (int q = 0; q < Quads; ++q) {
#pragma GCC unroll 8
    for (int t = 0; t < Tokens; ++t) add_products(sums[t], codes[q], x + 4 * (q * Tokens + t));
  }
}

template <int Bits, int Quads, int Tokens>
static inline void add_whole(const uint8_t* at, __m512i levels, const int8_t* x, __m512i* sums) {
  __m512i codes[Quads];
  decode<Bits, Quads>(at, levels, codes);
  add_decoded<Quads, Tokens>(codes, x, sums);
}

// Adds the products of a block of any coding; returns where the next one begins.
template <int Bits, int Quads, int Tokens>
[[gnu::always_inline]] static inline const uint8_t* add_block(const uint8_t* at, __m512i levels,
                                                              const int8_t* x, __m512i* sums) {
  if constexpr (is_sparse(Bits)) {
    __m512i codes[Quads];
    at = expand<Bits, Quads>(at, codes);
    add_decoded<Quads, Tokens>(codes, x, sums);
    return at;
  } else {
    add_whole<Bits, Quads, Tokens>(at, levels, x, sums);
    return at + block_bytes(Bits, Quads);
  }
}

// Writes the codes of a block of any coding; returns where the next one begins.
template <int Bits, int Quads>
static inline const uint8_t* unpack_block(const uint8_t* at, __m512i levels, uint8_t* to,
                                          std::size_t stride) {
  __m512i codes[Quads];
  const uint8_t* next = at;
  if constexpr (is_sparse(Bits)) {
    next = expand<Bits, Quads>(at, codes);
  } else {
    decode<Bits, Quads>(at, levels, codes);
    next += block_bytes(Bits, Quads);
  }
  for (int q = 0; q < Quads; ++q) _mm512_storeu_si512(to + q * stride, codes[q]);
  return next;
}

template <int Bits, int Quads = kQuads - 1>
static inline const uint8_t* unpack_rest(int quads, const uint8_t* at, __m512i levels, uint8_t* to,
                                         std::size_t stride) {
  if constexpr (Quads > 0) {
    if (quads == Quads) return unpack_block<Bits, Quads>(at, levels, to, stride);
    return unpack_rest<Bits, Quads - 1>(quads, at, levels, to, stride);
  }
  return at;
}

}  // namespace
}  // namespace whet::integer
