// Codes to bf16 values in registers, and scales to float32, with AVX-512 (BW, VBMI).
//
// A decoder reads blocks of one element type step by step (most often a vector), and hands on the
// high and the low part of 32 values. Words of codes are used as indices as they are: `vpermw`
// heeds 5 bits, `vpermi2w` 6, `vpermi2b` 7. Codes of 8 bits look their bytes up: two codes share a
// word, the bytes of their values come from tables of bytes and are put together.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)  // of its own intrinsics (gcc bug 105593)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <cstring>
#include <utility>

#include "base/bf16_avx512.h"
#include "linear/table/blocks.h"
#include "linear/table/kernel.h"

namespace whet::table {
namespace {

constexpr std::size_t kAhead = 16384;  // how far on codes are fetched [byte]

#define WHET_INLINE inline __attribute__((always_inline))

WHET_INLINE __m512i load_vector(const void* at) { return _mm512_loadu_si512(at); }
WHET_INLINE __m512bh as_bf16(__m512i v) { return (__m512bh)v; }

template <int kBits, int kIndex>
WHET_INLINE __m512i index_at(const std::byte* words) {
  constexpr Pieces where = pieces(kBits, kIndex);
  constexpr Piece first = where.piece[0];
  __m512i index = load_vector(words + first.word * kVectorBytes);
  if constexpr (first.shift) index = _mm512_srli_epi16(index, first.shift);
  if constexpr (where.count > 1) {
    index = _mm512_and_si512(index, _mm512_set1_epi16((1 << first.bits) - 1));
    [&]<int... kPiece>(std::integer_sequence<int, kPiece...>) {
      int at = 0;
      (
          [&] {
            constexpr Piece piece = where.piece[kPiece + 1];
            at += where.piece[kPiece].bits;
            __m512i part =
                _mm512_srli_epi16(load_vector(words + piece.word * kVectorBytes), piece.shift);
            constexpr int mask = (1 << piece.bits) - 1;
            if constexpr (piece.shift + piece.bits < 16)
              part = _mm512_and_si512(part, _mm512_set1_epi16(mask));
            index = _mm512_or_si512(index, _mm512_slli_epi16(part, at));
          }(),
          ...);
    }(std::make_integer_sequence<int, where.count - 1>{});
  }
  return index;
}

// Levels of up to 7 bits by word look-up.
template <int kBits>
struct Levels {
  static constexpr int kRegisters = kBits <= 5 ? 1 : 1 << (kBits - 5);
  __m512i part[kRegisters];

  WHET_INLINE explicit Levels(const std::uint16_t* table) {
    for (int i = 0; i < kRegisters; ++i) part[i] = load_vector(table + 32 * i);
  }
  WHET_INLINE __m512bh operator()(__m512i index) const {
    if constexpr (kBits <= 5) {
      return as_bf16(_mm512_permutexvar_epi16(index, part[0]));
    } else if constexpr (kBits == 6) {
      return as_bf16(_mm512_permutex2var_epi16(part[0], index, part[1]));
    } else {
      const __mmask32 upper = _mm512_test_epi16_mask(index, _mm512_set1_epi16(64));
      const __m512i lower = _mm512_permutex2var_epi16(part[0], index, part[1]);
      return as_bf16(
          _mm512_mask_mov_epi16(lower, upper, _mm512_permutex2var_epi16(part[2], index, part[3])));
    }
  }
};

template <int kBits, int kTerms_>
struct Coded {
  static constexpr int kTerms = kTerms_, kWords = block_words(kBits), kCount = block_codes(kBits);
  static constexpr int kSteps = kCount;
  static constexpr int kBytes = kWords * kVectorBytes;
  static constexpr int kBytesOfTable = kTerms * Levels<kBits>::kRegisters * kVectorBytes;
  Levels<kBits> high, low;

  WHET_INLINE explicit Coded(const Table* table)
      : high(table->high), low(kTerms == 2 ? table->low : table->high) {}

  template <int kStep, class Use>
  WHET_INLINE void step(const std::byte* at, Use&& use) const {
    const __m512i index = index_at<kBits, kStep>(at);
    if constexpr (kTerms == 2)
      use(kStep, high(index), low(index));
    else
      use(kStep, high(index), high(index));
  }
};

// A byte of 256 levels: two tables of 128, or one where the sign is the code's.
template <bool kMirrored>
struct Bytes {
  __m512i part[kMirrored ? 2 : 4];

  WHET_INLINE explicit Bytes(const std::uint8_t* table) {
    for (int i = 0; i < (kMirrored ? 2 : 4); ++i) part[i] = load_vector(table + 64 * i);
  }
  WHET_INLINE __m512i operator()(__m512i codes, __mmask64 upper) const {
    const __m512i lower = _mm512_permutex2var_epi8(part[0], codes, part[1]);
    if constexpr (kMirrored)
      return lower;
    else
      return _mm512_mask_mov_epi8(lower, upper, _mm512_permutex2var_epi8(part[2], codes, part[3]));
  }
};

template <int kTerms_, bool kMirrored>
struct Octets {
  static constexpr int kTerms = kTerms_, kCount = 2, kBytes = kVectorBytes, kSteps = 1;
  static constexpr int kBytesOfTable = kTerms * (kMirrored ? 4 : 8) * kVectorBytes;
  Bytes<kMirrored> high_lower, high_upper, low_lower, low_upper;

  WHET_INLINE explicit Octets(const Table* table)
      : high_lower(table->bytes[0]),
        high_upper(table->bytes[1]),
        low_lower(table->bytes[kTerms == 2 ? 2 : 0]),
        low_upper(table->bytes[kTerms == 2 ? 3 : 1]) {}

  template <int, class Use>
  WHET_INLINE void step(const std::byte* at, Use&& use) const {
    const __m512i codes = load_vector(at);
    const __mmask64 upper = kMirrored ? 0 : _mm512_movepi8_mask(codes);
    __m512i high[2], low[2];
    halves(high_lower(codes, upper), signed_upper(high_upper(codes, upper), codes), high);
    if constexpr (kTerms == 2)
      halves(low_lower(codes, upper), signed_upper(low_upper(codes, upper), codes), low);
    else
      low[0] = high[0], low[1] = high[1];
    use(0, as_bf16(high[0]), as_bf16(low[0]));
    use(1, as_bf16(high[1]), as_bf16(low[1]));
  }

 private:
  static WHET_INLINE __m512i signed_upper(__m512i bytes, __m512i codes) {
    if constexpr (!kMirrored) return bytes;
    return _mm512_ternarylogic_epi64(bytes, codes, _mm512_set1_epi8(-128), 0x78);  // a ^ (b & c)
  }
  // Words of the codes in lower bytes, and of those in upper bytes.
  static WHET_INLINE void halves(__m512i lower, __m512i upper, __m512i* out) {
    const __m512i mask = _mm512_set1_epi16(0xff);
    out[0] = _mm512_ternarylogic_epi64(mask, lower, _mm512_slli_epi16(upper, 8), 0xca);
    out[1] = _mm512_ternarylogic_epi64(mask, _mm512_srli_epi16(lower, 8), upper, 0xca);
  }
};

// Plain numbers; four pairs of inputs a block.
struct PlainBf16 {
  static constexpr int kTerms = 1, kCount = 4, kBytes = 4 * kVectorBytes, kSteps = 4;
  WHET_INLINE explicit PlainBf16(const Table*) {}
  template <int kStep, class Use>
  WHET_INLINE void step(const std::byte* at, Use&& use) const {
    const __m512bh value = as_bf16(load_vector(at + kStep * kVectorBytes));
    use(kStep, value, value);
  }
};

// Split numbers: lower bytes, and codes of upper ones, are put together. Four pairs a block.
struct SplitBf16 {
  static constexpr int kTerms = 1, kCount = 4, kBytes = 3 * kVectorBytes, kSteps = 2;
  __m512i uppers;

  WHET_INLINE explicit SplitBf16(const Table* table) : uppers(load_vector(table->bytes[1])) {}
  template <int kStep, class Use>
  WHET_INLINE void step(const std::byte* at, Use&& use) const {
    const __m512i lower = load_vector(at + kStep * kVectorBytes);
    __m512i codes = load_vector(at + 2 * kVectorBytes);
    if constexpr (kStep == 1) codes = _mm512_srli_epi16(codes, 4);
    const __m512i upper =
        _mm512_shuffle_epi8(uppers, _mm512_and_si512(codes, _mm512_set1_epi8(15)));
    const __m512bh first = as_bf16(_mm512_unpacklo_epi8(lower, upper));
    const __m512bh second = as_bf16(_mm512_unpackhi_epi8(lower, upper));
    use(2 * kStep, first, first);
    use(2 * kStep + 1, second, second);
  }
};

// Splits float32 numbers of the first and the second input of pairs: the high part is cut off, the
// low part is the rest (exact for f16), rounded.
template <bool kRound, class Use>
WHET_INLINE void split_pair(int i, __m512 first, __m512 second, Use&& use) {
  const __m512i mask = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  const __m512i a = _mm512_castps_si512(first), b = _mm512_castps_si512(second);
  const __m512i high = _mm512_ternarylogic_epi64(mask, b, _mm512_srli_epi32(a, 16), 0xca);
  __m512i rest_a =
      _mm512_castps_si512(_mm512_sub_ps(first, _mm512_castsi512_ps(_mm512_and_si512(a, mask))));
  __m512i rest_b =
      _mm512_castps_si512(_mm512_sub_ps(second, _mm512_castsi512_ps(_mm512_and_si512(b, mask))));
  if constexpr (kRound) {
    rest_a = _mm512_add_epi32(rest_a, _mm512_set1_epi32(0x8000));
    rest_b = _mm512_add_epi32(rest_b, _mm512_set1_epi32(0x8000));
  }
  use(i, as_bf16(high),
      as_bf16(_mm512_ternarylogic_epi64(mask, rest_b, _mm512_srli_epi32(rest_a, 16), 0xca)));
}

struct PlainF16 {
  static constexpr int kTerms = 2, kCount = 4, kBytes = 4 * kVectorBytes, kSteps = 4;
  WHET_INLINE explicit PlainF16(const Table*) {}
  template <int kStep, class Use>
  WHET_INLINE void step(const std::byte* at, Use&& use) const {
    const auto* halves = reinterpret_cast<const __m256i*>(at) + 2 * kStep;
    split_pair<false>(kStep, _mm512_cvtph_ps(_mm256_loadu_si256(halves)),
                      _mm512_cvtph_ps(_mm256_loadu_si256(halves + 1)), use);
  }
};

struct PlainF32 {
  static constexpr int kTerms = 2, kCount = 4, kBytes = 8 * kVectorBytes, kSteps = 4;
  WHET_INLINE explicit PlainF32(const Table*) {}
  template <int kStep, class Use>
  WHET_INLINE void step(const std::byte* at, Use&& use) const {
    const float* floats = reinterpret_cast<const float*>(at) + 32 * kStep;
    split_pair<true>(kStep, _mm512_loadu_ps(floats), _mm512_loadu_ps(floats + 16), use);
  }
};

// A block each of `kN` tiles that lie `apart`, vector by vector side by side, so that sums of
// different tiles take turns; what lies `ahead` is fetched, as the processor's own foresight ends
// with a page. `of(k)` is the decoder of tile k; `use(k, vector, high, low)`.
template <class Decoder, int kN, class Of, class Use>
WHET_INLINE void beside(Of&& of, const std::byte* at, std::size_t apart, std::size_t ahead,
                        Use&& use) {
  for (int k = 0; k < kN; ++k)
    for (int line = 0; line < Decoder::kBytes; line += kVectorBytes)
      _mm_prefetch(reinterpret_cast<const char*>(at + k * apart + ahead + line), _MM_HINT_T1);
  const auto all = [&]<int kStep>(std::integral_constant<int, kStep>) {
    for (int k = 0; k < kN; ++k)
      of(k).template step<kStep>(at + k * apart,
                                 [&](int i, __m512bh high, __m512bh low)
                                     __attribute__((always_inline)) { use(k, i, high, low); });
  };
  [&]<int... kStep>(std::integer_sequence<int, kStep...>) {
    (all(std::integral_constant<int, kStep>{}), ...);
  }(std::make_integer_sequence<int, Decoder::kSteps>{});
}

// One block.
template <class Decoder, class Use>
WHET_INLINE void decoded(const Decoder& decoder, const std::byte* at, Use&& use) {
  beside<Decoder, 1>([&](int) -> const Decoder& { return decoder; }, at, 0, kAhead,
                     [&](int, int i, __m512bh high, __m512bh low) { use(i, high, low); });
}

// Sixteen stored scales as float32.
WHET_INLINE __m512 scales_at(Scale kind, const std::byte* at, float global) {
  const auto* quarter = reinterpret_cast<const __m128i*>(at);
  const auto* half = reinterpret_cast<const __m256i*>(at);
  switch (kind) {
    case Scale::bf16:
      return _mm512_castsi512_ps(
          _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(half)), 16));
    case Scale::f16:
      return _mm512_cvtph_ps(_mm256_loadu_si256(half));
    case Scale::f32:
      return _mm512_loadu_ps(at);
    case Scale::e8m0:  // 0 stands for 2^-127, which has no exponent in float32
      return _mm512_castsi512_ps(
          _mm512_max_epi32(_mm512_slli_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128(quarter)), 23),
                           _mm512_set1_epi32(0x00400000)));
    case Scale::e4m3: {  // as f16 it is 2^-8 of its value, whose subnormals are f16's
      const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(quarter));
      const __m256i bits = _mm256_and_si256(_mm256_slli_epi16(wide, 7),
                                            _mm256_set1_epi16(static_cast<short>(0xbf80)));
      return _mm512_mul_ps(_mm512_cvtph_ps(bits), _mm512_set1_ps(256 * global));
    }
    case Scale::none:
      break;
  }
  return _mm512_set1_ps(1);
}

// Calls visit.template operator()<Decoder>() with the decoder of a layout.
template <class Visit>
WHET_INLINE void with_decoder(const Layout& l, const Table* table, Visit&& visit) {
  const bool two = l.terms == 2;
  switch (l.coding.number) {
    case Number::bf16:
      return l.split ? visit.template operator()<SplitBf16>()
                     : visit.template operator()<PlainBf16>();
    case Number::f16:
      return visit.template operator()<PlainF16>();
    case Number::f32:
      return visit.template operator()<PlainF32>();
    case Number::code:
      break;
  }
  switch (l.coding.bits) {
#define WHET_CASE(bits)                                      \
  case bits:                                                 \
    return two ? visit.template operator()<Coded<bits, 2>>() \
               : visit.template operator()<Coded<bits, 1>>();
    WHET_CASE(2)
    WHET_CASE(3)
    WHET_CASE(4)
    WHET_CASE(5)
    WHET_CASE(6)
    WHET_CASE(7)
#undef WHET_CASE
  }
  if (table && table->mirrored)
    return two ? visit.template operator()<Octets<2, true>>()
               : visit.template operator()<Octets<1, true>>();
  return two ? visit.template operator()<Octets<2, false>>()
             : visit.template operator()<Octets<1, false>>();
}

}  // namespace
}  // namespace whet::table
