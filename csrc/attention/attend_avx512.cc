// Attention by dot products of bf16 numbers, of two tiers: pages in pairs are multiplied as they lie, or from a tile of
// them.
//
// Queries and weights are rounded to bf16, sums are float32. Pages of plain numbers take the path
// of the other tiers.
#include "attention/attend.inl"
#include "base/bf16_avx512.h"

namespace whet {
namespace {

using Pair = uint32_t;  // two bf16

struct Paired {
  const uint16_t* keys;
  const uint16_t* values;
};

inline __m512bh pairs(const void* from) { return (__m512bh)_mm512_loadu_si512(from); }
inline __m512bh both(Pair pair) { return (__m512bh)_mm512_set1_epi32(static_cast<int>(pair)); }

// Sixteen pairs of which the first number is of `a`, the second of `b`.
inline __m512i woven(__m512 a, __m512 b) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, to_bf16(a, b));
}

void widen_int8(const std::byte* codes, size_t count, uint16_t* out) {
  for (size_t i = 0; i < count; i += 32) {
    const auto* const from = reinterpret_cast<const __m128i*>(codes + i);
    const __m512 a = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from)));
    const __m512 b = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from + 1)));
    _mm512_storeu_si512(out + i, to_bf16(a, b));
  }
}

// The codes of sixteen pairs, one pair to a byte.
template <int bits>
inline __m512i sixteen(const Byte* codes) {
  if constexpr (bits == 4)
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
  const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes));
  const __m128i low = _mm_and_si128(eight, _mm_set1_epi8(15));
  const __m128i high = _mm_and_si128(_mm_srli_epi16(eight, 4), _mm_set1_epi8(15));
  return _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(low, high));
}

// Decodes sixteen pairs: the first of each with `first` (scale, least), the second with `second`.
template <int bits>
inline __m512i decoded(const Byte* codes, const uint16_t* first, const uint16_t* second) {
  const __m512i two = sixteen<bits>(codes);
  const __m512 a = _mm512_cvtepi32_ps(_mm512_and_si512(two, _mm512_set1_epi32((1 << bits) - 1)));
  const __m512 b = _mm512_cvtepi32_ps(_mm512_srli_epi32(two, bits));
  const auto number = [](const uint16_t* p) { return _mm512_set1_ps(bf16_to_f32(*p)); };
  return woven(_mm512_add_ps(_mm512_mul_ps(a, number(first)), number(first + 1)),
               _mm512_add_ps(_mm512_mul_ps(b, number(second)), number(second + 1)));
}

template <int bits>
void widen_coded(int width, Page page, uint16_t* keys, uint16_t* values) {
  const size_t codes = static_cast<size_t>(width) * kPage * bits / 8;
  constexpr int step = 16 * 2 * bits / 8;  // bytes of sixteen pairs
  const int groups = value_groups(width);
  const auto* const key_params = as<const uint16_t>(page.keys + codes);
  const auto* const value_params = as<const uint16_t>(page.values + codes);
  const Byte* from = bytes(page.keys);
  for (int c = 0; c < width; c += 2)
    for (int j = 0; j < kPage; j += 16, from += step, keys += 32)
      _mm512_storeu_si512(keys, decoded<bits>(from, key_params + 2 * c, key_params + 2 * c + 2));
  from = bytes(page.values);
  for (int j = 0; j < kPage; j += 2)
    for (int c = 0; c < width; c += 16, from += step, values += 32) {
      const uint16_t* const params = value_params + 2 * (j * groups + c / kValueGroup);
      _mm512_storeu_si512(values, decoded<bits>(from, params, params + 2 * groups));
    }
}

inline Paired paired(Kind kind, int width, Page page, uint16_t* room) {
  if (kind == Kind::bf16) return {as<const uint16_t>(page.keys), as<const uint16_t>(page.values)};
  const size_t count = static_cast<size_t>(width) * kPage;
  if (kind == Kind::int8) {
    widen_int8(page.keys, count, room);
    widen_int8(page.values, count, room + count);
  } else if (kind == Kind::kv4) {
    widen_coded<4>(width, page, room, room + count);
  } else {
    widen_coded<2>(width, page, room, room + count);
  }
  return {room, room + count};
}

template <int count>
inline void paired_scores(const Pair* q, int width, const uint16_t* keys, float* scores) {
  __m512 sums[count][4] = {};
  for (int c = 0; c < width / 2; ++c) {
    __m512bh key[4];
    for (int k = 0; k < 4; ++k) key[k] = pairs(keys + c * 2 * kPage + 32 * k);
    for (int r = 0; r < count; ++r) {
      const __m512bh query = both(q[r * width / 2 + c]);
      for (int k = 0; k < 4; ++k) sums[r][k] = add_pairs(sums[r][k], key[k], query);
    }
  }
  for (int r = 0; r < count; ++r)
    for (int k = 0; k < 4; ++k) _mm512_storeu_ps(scores + r * kPage + 16 * k, sums[r][k]);
}

template <int count, int columns>
inline void paired_mix(const Pair* weights, const float* kept, Seen seen, const uint16_t* values,
                       int width, float* mix) {
  __m512 sums[count][columns];
  for (int r = 0; r < count; ++r)
    for (int k = 0; k < columns; ++k)
      sums[r][k] =
          _mm512_mul_ps(_mm512_loadu_ps(mix + r * width + 16 * k), _mm512_set1_ps(kept[r]));
  for (int j = seen.low / 2; j < (seen.high + 1) / 2; ++j) {
    __m512bh value[columns];
    for (int k = 0; k < columns; ++k) value[k] = pairs(values + j * 2 * width + 32 * k);
    for (int r = 0; r < count; ++r) {
      const __m512bh weight = both(weights[r * kPage / 2 + j]);
      for (int k = 0; k < columns; ++k) sums[r][k] = add_pairs(sums[r][k], value[k], weight);
    }
  }
  for (int r = 0; r < count; ++r)
    for (int k = 0; k < columns; ++k) _mm512_storeu_ps(mix + r * width + 16 * k, sums[r][k]);
}

template <int count>
void paired_rows(const Queries& queries, int row, int first, Paired tile, Scales scales,
                 const Pair* q, Partial into) {
  const int width = padded(queries.dim);
  float scores[count * kPage], kept[count];
  Pair weights[count * kPage / 2];
  paired_scores<count>(q + row * width / 2, width, tile.keys, scores);
  Seen whole;
  if (!weights_of<count>(queries, row, first, scales, into, scores, kept, &whole)) return;
  for (int i = 0; i < count * kPage; i += 32)
    _mm512_storeu_si512(weights + i / 2,
                        to_bf16(_mm512_loadu_ps(scores + i), _mm512_loadu_ps(scores + i + 16)));
  float* const mix = into.mix + static_cast<size_t>(row) * width;
  int c = 0;
  for (; c + 64 <= width; c += 64)
    paired_mix<count, 4>(weights, kept, whole, tile.values + 2 * c, width, mix + c);
  for (; c < width; c += 16)
    paired_mix<count, 1>(weights, kept, whole, tile.values + 2 * c, width, mix + c);
}

// Scratch: queries in float32 and a plain tile, then queries in bf16 and a tile of pairs.
size_t scratch(int rows, int dim) {
  const size_t width = padded(dim);
  return plain_scratch(rows, dim) +
         sizeof(uint16_t) * width * (static_cast<size_t>(rows) + 2 * kPage);
}

inline uint16_t* paired_part(const Queries& queries, void* scratch) {
  return reinterpret_cast<uint16_t*>(static_cast<std::byte*>(scratch) +
                                     plain_scratch(queries.rows(), queries.dim));
}

void begin(const Queries& queries, Kind kind, void* scratch) {
  if (kind == Kind::f32 || kind == Kind::f16) return plain_begin(queries, kind, scratch);
  const int width = padded(queries.dim);
  uint16_t* to = paired_part(queries, scratch);
  for (int row = 0; row < queries.rows(); ++row, to += width) {
    const float* const from = query(queries, row);
    for (int c = 0; c < width; c += 16) {
      const int rest = queries.dim - c;
      const auto kept = static_cast<__mmask16>(rest >= 16 ? 0xffff : (1 << rest) - 1);
      const __m512 q = _mm512_maskz_loadu_ps(kept, from + c);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + c), to_bf16(q));
    }
  }
}

void page(const Queries& queries, Kind kind, Page page, int first, void* scratch, Partial into) {
  if (kind == Kind::f32 || kind == Kind::f16)
    return plain_page(queries, kind, page, first, scratch, into);
  const int width = padded(queries.dim);
  uint16_t* const q = paired_part(queries, scratch);
  const Paired tile = paired(kind, width, page, q + static_cast<size_t>(queries.rows()) * width);
  const Scales scales = scales_of(kind, width, page);
  pieces<6>(queries.rows(), [&]<int count>(int row) {
    if (any_seen(queries, row, count, first))
      paired_rows<count>(queries, row, first, tile, scales, reinterpret_cast<const Pair*>(q), into);
  });
}

}  // namespace

const Attention& WHET_AVX512::attention() {
  static constexpr Attention table = {put, settle, scratch, begin, page, clear, merge, finish};
  return table;
}

}  // namespace whet
