// Table kernels with AVX2 and FMA: levels and products in float32.
#include <immintrin.h>

#include "linear/table/portable.h"

namespace whet::table {
namespace {

// Looks eight codes up; what lies above them in their lanes is ignored.
template <int kBits>
struct Lookup {
  const float* table;
  __m256 lower, upper;

  explicit Lookup(const float* levels)
      : table(levels), lower(_mm256_loadu_ps(levels)), upper(_mm256_loadu_ps(levels + 8)) {}
  __m256 operator()(__m256i codes) const {
    if constexpr (kBits <= 3) {
      return _mm256_permutevar8x32_ps(lower, codes);
    } else if constexpr (kBits == 4) {
      return _mm256_blendv_ps(_mm256_permutevar8x32_ps(lower, codes),
                              _mm256_permutevar8x32_ps(upper, codes),
                              _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28)));
    } else {
      const __m256i mask = _mm256_set1_epi32((1 << kBits) - 1);
      return _mm256_i32gather_ps(table, _mm256_and_si256(codes, mask), 4);
    }
  }
};

// Code `kIndex` of eight lanes of even number, or of odd number, of 32-bit words.
template <int kBits, int kIndex, bool kOdd>
__m256i codes_at(const __m256i* words) {
  constexpr Pieces where = pieces(kBits, kIndex);
  constexpr int up = kOdd ? 16 : 0;
  if constexpr (where.count == 1) {
    return _mm256_srli_epi32(words[2 * where.piece[0].word], where.piece[0].shift + up);
  } else {
    __m256i codes = _mm256_setzero_si256();
    int at = 0;
    for (int p = 0; p < where.count; at += where.piece[p++].bits) {
      const __m256i part = _mm256_and_si256(
          _mm256_srli_epi32(words[2 * where.piece[p].word], where.piece[p].shift + up),
          _mm256_set1_epi32((1 << where.piece[p].bits) - 1));
      codes = _mm256_or_si256(codes, _mm256_slli_epi32(part, at));
    }
    return codes;
  }
}

template <int kBits, int kIndex>
void store_code(const __m256i* words, const Lookup<kBits>& lookup, bool by_row, float* out) {
  for (int half = 0; half < 2; ++half) {
    const __m256 even = lookup(codes_at<kBits, kIndex, false>(words + half));
    const __m256 odd = lookup(codes_at<kBits, kIndex, true>(words + half));
    float* to = out + kIndex * kLanes;
    if (!by_row) {
      _mm256_store_ps(to + 8 * half, even);
      _mm256_store_ps(to + kRows + 8 * half, odd);
      continue;
    }
    const __m256 low = _mm256_unpacklo_ps(even, odd), high = _mm256_unpackhi_ps(even, odd);
    _mm256_store_ps(to + 16 * half, _mm256_permute2f128_ps(low, high, 0x20));
    _mm256_store_ps(to + 16 * half + 8, _mm256_permute2f128_ps(low, high, 0x31));
  }
}

template <int kBits>
void decoded_block(const std::byte* at, const float* table, bool by_row, float* out) {
  __m256i words[2 * block_words(kBits)];
  for (int i = 0; i < 2 * block_words(kBits); ++i)
    words[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at) + i);
  const Lookup<kBits> lookup(table);
  [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) {
    (store_code<kBits, kIndex>(words, lookup, by_row, out), ...);
  }(std::make_integer_sequence<int, block_codes(kBits)>{});
}

template <int kT>
void rows_of(const float* values, const float* scale, const float* offset, const float* x,
             const float* sums, int inputs, float* y) {
  __m256 sum[kT][2];
  for (int t = 0; t < kT; ++t)
    for (int h = 0; h < 2; ++h)
      sum[t][h] = sums ? _mm256_mul_ps(_mm256_load_ps(offset + 8 * h), _mm256_set1_ps(sums[t]))
                       : _mm256_setzero_ps();
  for (int i = 0; i < inputs; ++i, values += kRows, x += kT) {
    const __m256 lower = _mm256_load_ps(values), upper = _mm256_load_ps(values + 8);
    for (int t = 0; t < kT; ++t) {
      const __m256 factor = _mm256_broadcast_ss(x + t);
      sum[t][0] = _mm256_fmadd_ps(lower, factor, sum[t][0]);
      sum[t][1] = _mm256_fmadd_ps(upper, factor, sum[t][1]);
    }
  }
  for (int t = 0; t < kT; ++t)
    for (int h = 0; h < 2; ++h) {
      float* to = y + t * kRows + 8 * h;
      _mm256_storeu_ps(
          to, _mm256_fmadd_ps(_mm256_load_ps(scale + 8 * h), sum[t][h], _mm256_loadu_ps(to)));
    }
}

void Lanes::block(int bits, const std::byte* at, const float* table, bool by_row, float* out) {
  switch (bits) {
    case 2:
      return decoded_block<2>(at, table, by_row, out);
    case 3:
      return decoded_block<3>(at, table, by_row, out);
    case 4:
      return decoded_block<4>(at, table, by_row, out);
    case 5:
      return decoded_block<5>(at, table, by_row, out);
    case 6:
      return decoded_block<6>(at, table, by_row, out);
    case 7:
      return decoded_block<7>(at, table, by_row, out);
    default:
      return decoded_block<8>(at, table, by_row, out);
  }
}

void Lanes::rows(const float* values, const float* scale, const float* offset, const float* x,
                 const float* sums, int tokens, int inputs, float* y) {
  switch (tokens) {
    case 1:
      return rows_of<1>(values, scale, offset, x, sums, inputs, y);
    case 2:
      return rows_of<2>(values, scale, offset, x, sums, inputs, y);
    case 3:
      return rows_of<3>(values, scale, offset, x, sums, inputs, y);
    default:
      return rows_of<4>(values, scale, offset, x, sums, inputs, y);
  }
}

void Lanes::row(const float* values, float scale, const float* x, int width, int tokens, int inputs,
                float* y) {
  const __m256 factor = _mm256_set1_ps(scale);
  for (int t = 0; t < tokens; ++t, y += kRows, x += width) {
    __m256 lower = _mm256_setzero_ps(), upper = lower;
    for (int i = 0; i < inputs; i += kRows) {
      lower = _mm256_fmadd_ps(_mm256_load_ps(values + i), _mm256_loadu_ps(x + i), lower);
      upper = _mm256_fmadd_ps(_mm256_load_ps(values + i + 8), _mm256_loadu_ps(x + i + 8), upper);
    }
    _mm256_storeu_ps(y, _mm256_fmadd_ps(factor, lower, _mm256_loadu_ps(y)));
    _mm256_storeu_ps(y + 8, _mm256_fmadd_ps(factor, upper, _mm256_loadu_ps(y + 8)));
  }
}

}  // namespace

const Kernels kAvx2{Lanes::kTokens, 4, prepare, scratch_bytes, multiply};

}  // namespace whet::table
