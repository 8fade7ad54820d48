// Integer weights times int8 activations by AVX2: vpmaddubsw adds pairs of products in 16 bits.
//
// It saturates, so only as many products are added in 16 bits as cannot: eight pairs of 4-bit codes
// (8·2·15·128 < 2^15), four of 5 bits, two of 6, one of 7; codes of 8 bits are split into
// min(q, 127) and the rest (at most 128; two products of it lie within −2^15 and 2^15 − 2^8).
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "linear/integer/planes.h"

namespace whet::integer {
namespace {

#include "linear/integer/prepare.inl"

constexpr int kTogether = 4;  // tokens of one pass over a tile
constexpr int kHalf = 32;     // bytes of a quad of eight rows
constexpr int kAhead = 8192;  // bytes that prefetching runs ahead

static inline __m256 read_scales(const uint8_t* at, Scale kind, int half) {
  const auto word = [&](int bytes) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + half * 8 * bytes));
  };
  switch (kind) {
    case Scale::bf16:
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(word(2)), 16));
    case Scale::f16:
      return _mm256_cvtph_ps(word(2));
    case Scale::f32:
      return _mm256_loadu_ps(reinterpret_cast<const float*>(at) + half * 8);
    default: {  // an exponent; that of zero is 2^-127
      const __m128i exponents = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at + half * 8));
      return _mm256_castsi256_ps(_mm256_max_epi32(
          _mm256_slli_epi32(_mm256_cvtepu8_epi32(exponents), 23), _mm256_set1_epi32(0x00400000)));
    }
  }
}

static inline __m256i read_zeros(const uint8_t* at) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at)));
}

// A step's sum from those of its halves.
static inline __m256i put_together(__m256i upper, __m256i lower) {
  return _mm256_add_epi32(_mm256_slli_epi32(upper, 8), lower);
}

static inline __m256i four_inputs(const int8_t* x) {
  int32_t word;
  std::memcpy(&word, x, 4);
  return _mm256_set1_epi32(word);
}

// How many quads' products may be added in 16 bits.
constexpr int safe_quads(int bits) { return bits <= 4 ? 8 : bits == 5 ? 4 : bits == 6 ? 2 : 1; }

static inline __m256i widened(__m256i sums, __m256i pairs) {
  return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

// Adds the products of some quads and the inputs of all tokens.
template <int Bits, int Quads, int Tokens>
static inline void add_products(const __m256i* codes, const int8_t* x, __m256i* sums) {
  constexpr int kSafe = safe_quads(value_width(Bits));
  const __m256i most = _mm256_set1_epi8(127);
  __m256i pairs[Tokens];
#pragma GCC unroll 8
  for (int q = 0; q < Quads; ++q) {
#pragma GCC unroll 4
    for (int t = 0; t < Tokens; ++t) {
      const __m256i four = four_inputs(x + 4 * (q * Tokens + t));
      if constexpr (value_width(Bits) == 8) {
        sums[t] = widened(sums[t], _mm256_maddubs_epi16(_mm256_min_epu8(codes[q], most), four));
        sums[t] = widened(sums[t], _mm256_maddubs_epi16(_mm256_subs_epu8(codes[q], most), four));
      } else {
        const __m256i products = _mm256_maddubs_epi16(codes[q], four);
        pairs[t] = q % kSafe == 0 ? products : _mm256_add_epi16(pairs[t], products);
        if (q % kSafe == kSafe - 1 || q == Quads - 1) sums[t] = widened(sums[t], pairs[t]);
      }
    }
  }
}

// The levels of mapped codes, twice; any bytes where codes are not.
template <int Coding>
static inline __m256i level_table(const Weight& weight) {
  if constexpr (!is_mapped(Coding)) return _mm256_setzero_si256();
  return _mm256_broadcastsi128_si256(
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(weight.levels)));
}

template <int Bits, int Quads, int Tokens>
static inline void add_block(const uint8_t* at, __m256i levels, const int8_t* x, __m256i* sums) {
  __m256i codes[Quads];
  unpack<Bits, Quads>(at, codes);
  if constexpr (is_mapped(Bits)) {
#pragma GCC unroll 8
    for (int q = 0; q < Quads; ++q) codes[q] = _mm256_shuffle_epi8(levels, codes[q]);
  }
  add_products<Bits, Quads, Tokens>(codes, x, sums);
}

template <int Bits, int Tokens, int Quads = kQuads - 1>
static inline void add_rest(int quads, const uint8_t* at, __m256i levels, const int8_t* x,
                            __m256i* sums) {
  if constexpr (Quads > 0) {
    if (quads == Quads) return add_block<Bits, Quads, Tokens>(at, levels, x, sums);
    add_rest<Bits, Tokens, Quads - 1>(quads, at, levels, x, sums);
  }
}

static inline void prefetch_line(const uint8_t* at) {
  _mm_prefetch(reinterpret_cast<const char*>(at) + kAhead, _MM_HINT_T0);
}

template <int Bits>
static inline void prefetch(const uint8_t* at) {
  for (int line = 0; line < block_bytes(Bits, kQuads); line += kVector) prefetch_line(at + line);
}

// The sums of eight rows; `half` says which. `Short`: a step is one full block.
template <int Bits, bool Short, int Tokens>
void half_sums(const Weight& weight, const uint8_t* at, int half, Batch batch, int halves,
               __m256* y) {
  constexpr int kBytes = block_bytes(Bits, kQuads);
  const int blocks = Short ? 1 : weight.step / kBlock;
  const int rest = Short ? 0 : weight.step % kBlock / 4;
  const int rest_bytes = weight.step_bytes - blocks * kBytes;
  const int steps = weight.steps;
  const __m256i levels = level_table<Bits>(weight);
  const __m256 unit = _mm256_set1_ps(weight.unit);
  __m256 total[Tokens], scales = _mm256_setzero_ps(), minima = _mm256_setzero_ps();
  __m256i zeros = _mm256_set1_epi32(weight.half());
  for (int t = 0; t < Tokens; ++t) total[t] = _mm256_setzero_ps();
  for (int step = 0, next = 0; step < steps; ++step) {
    if (step == next) {
      prefetch_line(at);
      scales = _mm256_mul_ps(read_scales(at, weight.scale, half), unit);
      const uint8_t* shifts = at + kRows * weight.scale_bytes;
      if (weight.affine) zeros = read_zeros(shifts + half * 8);
      if (weight.minimum) minima = read_scales(shifts, weight.scale, half);
      at += weight.head;
      next += weight.group;
    }
    __m256i sums[Tokens];
#pragma GCC unroll 4
    for (int t = 0; t < Tokens; ++t) {
      sums[t] = _mm256_mullo_epi32(zeros, _mm256_set1_epi32(batch.sums[t]));
    }
    for (int block = 0; block < blocks; ++block, at += kBytes, batch.x += kBlock * Tokens) {
      prefetch<Bits>(at);
      add_block<Bits, kQuads, Tokens>(at + half * kHalf, levels, batch.x, sums);
    }
    if (rest != 0) {
      add_rest<Bits, Tokens>(rest, at + half * kHalf, levels, batch.x, sums);
      at += rest_bytes;
      batch.x += rest * 4 * Tokens;
    }
#pragma GCC unroll 4
    for (int t = halves - 1; t < Tokens; t += halves) {
      if (halves == 2) sums[t] = put_together(sums[t - 1], sums[t]);
      const __m256 factor = _mm256_mul_ps(scales, _mm256_set1_ps(batch.scales[t]));
      total[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[t]), factor, total[t]);
      if (!weight.minimum) continue;
      const float sum = batch.scales[t] * static_cast<float>(-batch.sums[t]);
      total[t] = _mm256_fmadd_ps(minima, _mm256_set1_ps(sum), total[t]);
    }
    batch.scales += Tokens;
    batch.sums += Tokens;
  }
  for (int t = 0; t < Tokens; ++t) y[t] = total[t];
}

using HalfSums = void (*)(const Weight&, const uint8_t*, int, Batch, int, __m256*);

template <int Bits, bool Short, int... Counts>
HalfSums pick(int tokens, std::integer_sequence<int, Counts...>) {
  static constexpr HalfSums found[] = {half_sums<Bits, Short, Counts + 1>...};
  return found[tokens - 1];
}

template <int Bits>
HalfSums half_sums_of(const Weight& weight, int tokens) {
  using Counts = std::make_integer_sequence<int, kTogether>;
  return weight.step == kBlock ? pick<Bits, true>(tokens, Counts{})
                               : pick<Bits, false>(tokens, Counts{});
}

HalfSums half_sums_of(const Weight& weight, int tokens) {
  switch (weight.coding) {
    case 2:
      return half_sums_of<2>(weight, tokens);
    case 3:
      return half_sums_of<3>(weight, tokens);
    case 4:
      return half_sums_of<4>(weight, tokens);
    case 5:
      return half_sums_of<5>(weight, tokens);
    case 6:
      return half_sums_of<6>(weight, tokens);
    case 7:
      return half_sums_of<7>(weight, tokens);
    case 2 + kMapped:
      return half_sums_of<2 + kMapped>(weight, tokens);
    case 3 + kMapped:
      return half_sums_of<3 + kMapped>(weight, tokens);
    case 4 + kMapped:
      return half_sums_of<4 + kMapped>(weight, tokens);
    default:
      return half_sums_of<8>(weight, tokens);
  }
}

int together(int count, int halves) { return evenly(count, kTogether, halves); }

void write(float* y, int rows, bool accumulate, __m256 sums) {
  float own[8];
  _mm256_storeu_ps(own, sums);
  for (int r = 0; r < std::min(rows, 8); ++r) y[r] = accumulate ? y[r] + own[r] : own[r];
}

void multiply(const Weight& weight, const Input& input, int halves, const Output& out, std::byte*,
              int first, int last) {
  const int most = together(halves, out.halves);
  for (int tile = first; tile < last; ++tile) {
    const uint8_t* at = weight.tiles + tile * weight.tile_bytes;
    for (int begin = 0; begin < halves; begin += most) {
      const int count = std::min(most, halves - begin);
      const Batch batch = batch_of(input, begin);
      const HalfSums half_sums = half_sums_of(weight, count);
      for (int half = 0; half < 2 && tile * kRows + half * 8 < weight.rows; ++half) {
        __m256 sums[kTogether];
        half_sums(weight, at, half, batch, out.halves, sums);
        const int row = tile * kRows + half * 8;
        for (int t = 0; t < count; t += out.halves) {
          write(out.y + static_cast<std::size_t>((begin + t) / out.halves) * out.stride + row,
                weight.rows - row, out.accumulate, sums[t + out.halves - 1]);
        }
      }
    }
  }
}

std::size_t scratch(const Weight&, int) { return 0; }

}  // namespace

const Routines kAvx2 = {prepare, together, multiply, scratch, 1};

}  // namespace whet::integer
