// Up to sixteen tokens, or eight in halves: each tile is read once from memory, unpacked in registers
// and multiplied by eight of them at most; by more, it is read again from the cache.
#include "linear/integer/avx512.h"

namespace whet::integer {
namespace {

constexpr int kAhead = 32768;  // bytes that prefetching into the second cache runs ahead

static inline void prefetch_line(const uint8_t* at) {
  _mm_prefetch(reinterpret_cast<const char*>(at) + kAhead, _MM_HINT_T1);
}

// Of a block of which some codes are stored, as many lines as it can have.
template <int Bits>
static inline void prefetch(const uint8_t* at) {
  constexpr int most = kQuads * (8 + static_cast<int>(kept_bytes(Bits, kVector)));
  constexpr int bytes = is_sparse(Bits) ? most : block_bytes(Bits, kQuads);
  for (int line = 0; line < bytes; line += kVector) prefetch_line(at + line);
}

// Adds the products of codes in memory, the shorter block at the end of a step.
template <int Tokens>
static inline void add_codes(const uint8_t* codes, int quads, const int8_t* x, __m512i* sums) {
  for (int q = 0; q < quads; ++q) {
    const __m512i own = load(codes + q * kVector);
#pragma GCC unroll 8
    for (int t = 0; t < Tokens; ++t) add_products(sums[t], own, x + 4 * (q * Tokens + t));
  }
}

// Adds a step's products, scaled, to the totals: of tokens in halves to that of the second.
template <int Tokens>
static inline void add_scaled(__m512i* sums, int halves, __m512 scales, const float* a,
                              __m512* total) {
  if (halves == 2) {
#pragma GCC unroll 4
    for (int t = 1; t < Tokens; t += 2) sums[t] = put_together(sums[t - 1], sums[t]);
#pragma GCC unroll 4
    for (int t = 1; t < Tokens; t += 2) {
      const __m512 factor = _mm512_mul_ps(scales, _mm512_set1_ps(a[t]));
      total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[t]), factor, total[t]);
    }
    return;
  }
#pragma GCC unroll 8
  for (int t = 0; t < Tokens; ++t) {
    const __m512 factor = _mm512_mul_ps(scales, _mm512_set1_ps(a[t]));
    total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[t]), factor, total[t]);
  }
}

// Adds the minima's part of a step.
template <int Tokens>
static inline void add_minima(const Batch& batch, __m512 minima, __m512* total) {
#pragma GCC unroll 8
  for (int t = 0; t < Tokens; ++t) {
    total[t] = _mm512_fmadd_ps(minima, _mm512_set1_ps(input_sum(batch, t)), total[t]);
  }
}

// Adds a step of any length. A block of one or two tokens makes short chains of its own.
template <int Bits, int Tokens>
static inline const uint8_t* add_step(const Weight& weight, const uint8_t* at, __m512i levels,
                                      const int8_t* x, __m512i* sums) {
  const int blocks = weight.step / kBlock, rest = weight.step % kBlock / 4;
  for (int block = 0; block < blocks; ++block, x += kBlock * Tokens) {
    prefetch<Bits>(at);
    if constexpr (Tokens <= 2) {
      __m512i own[Tokens];
      for (int t = 0; t < Tokens; ++t) own[t] = _mm512_setzero_si512();
      at = add_block<Bits, kQuads, Tokens>(at, levels, x, own);
      for (int t = 0; t < Tokens; ++t) sums[t] = _mm512_add_epi32(sums[t], own[t]);
    } else {
      at = add_block<Bits, kQuads, Tokens>(at, levels, x, sums);
    }
  }
  if (rest != 0) {
    alignas(kVector) uint8_t codes[kQuads * kVector];
    at = unpack_rest<Bits>(rest, at, levels, codes, kVector);
    add_codes<Tokens>(codes, rest, x, sums);
  }
  return at;
}

// The sums of a tile. A step has `Quads` quads, or any number if that is 0. `Shifted`: a group has zero
// points or a minimum. All in line: a call would hand the codes of a block over in memory.
template <int Bits, bool Shifted, int Quads, int Tokens>
[[gnu::flatten]] void tile_sums(const Weight& weight, const uint8_t* at, Batch batch, int halves,
                                __m512* y) {
  const int inputs = Quads == 0 ? weight.step : 4 * Quads;
  const int steps = weight.steps, group = weight.group, head = weight.head;
  const int shifts_at = kRows * weight.scale_bytes;
  const Scale kind = weight.scale;
  const __m512i levels = level_table<Bits>(weight);
  const __m512 unit = _mm512_set1_ps(weight.unit);
  __m512 total[Tokens], scales = _mm512_setzero_ps(), minima = _mm512_setzero_ps();
  __m512i zeros = _mm512_setzero_si512();
#pragma GCC unroll 8
  for (int t = 0; t < Tokens; ++t) total[t] = _mm512_setzero_ps();
  for (int step = 0, next = 0; step < steps; ++step) {
    if (step == next) {
      prefetch_line(at);
      scales = _mm512_mul_ps(read_scales(at, kind), unit);
      if (Shifted && weight.affine) zeros = read_zeros(at + shifts_at);
      if (Shifted && weight.minimum) minima = read_scales(at + shifts_at, kind);
      at += head;
      next += group;
    }
    __m512i sums[Tokens];
#pragma GCC unroll 8
    for (int t = 0; t < Tokens; ++t) sums[t] = begun<Bits, Shifted>(zeros, batch.sums[t]);
    if constexpr (Quads == 0) {
      at = add_step<Bits, Tokens>(weight, at, levels, batch.x, sums);
    } else {
      prefetch<Bits>(at);
      at = add_block<Bits, Quads, Tokens>(at, levels, batch.x, sums);
    }
    batch.x += inputs * Tokens;
    add_scaled<Tokens>(sums, halves, scales, batch.scales, total);
    if (Shifted && weight.minimum) add_minima<Tokens>(batch, minima, total);
    batch.scales += Tokens;
    batch.sums += Tokens;
  }
#pragma GCC unroll 8
  for (int t = 0; t < Tokens; ++t) y[t] = total[t];
}

using TileSums = void (*)(const Weight&, const uint8_t*, Batch, int, __m512*);

template <int Bits, bool Shifted, int Quads, int... Counts>
TileSums pick(int tokens, std::integer_sequence<int, Counts...>) {
  static constexpr TileSums found[] = {tile_sums<Bits, Shifted, Quads, Counts + 1>...};
  return found[tokens - 1];
}

template <int Bits, bool Shifted>
TileSums tile_sums_of(const Weight& weight, int tokens) {
  using Counts = std::make_integer_sequence<int, kFewTogether>;
  if (weight.step == kBlock) return pick<Bits, Shifted, kQuads>(tokens, Counts{});
  if (weight.step == kBlock / 2) return pick<Bits, Shifted, kQuads / 2>(tokens, Counts{});
  return pick<Bits, Shifted, 0>(tokens, Counts{});
}

template <int Bits>
TileSums tile_sums_of(const Weight& weight, int tokens) {
  if constexpr (is_mapped(Bits)) return tile_sums_of<Bits, false>(weight, tokens);
  return weight.affine || weight.minimum ? tile_sums_of<Bits, true>(weight, tokens)
                                         : tile_sums_of<Bits, false>(weight, tokens);
}

TileSums tile_sums_of(const Weight& weight, int tokens) {
  switch (weight.coding) {
    case 2:
      return tile_sums_of<2>(weight, tokens);
    case 3:
      return tile_sums_of<3>(weight, tokens);
    case 4:
      return tile_sums_of<4>(weight, tokens);
    case 5:
      return tile_sums_of<5>(weight, tokens);
    case 6:
      return tile_sums_of<6>(weight, tokens);
    case 7:
      return tile_sums_of<7>(weight, tokens);
    case 4 + kSparse:
      return tile_sums_of<4 + kSparse>(weight, tokens);
    case 8 + kSparse:
      return tile_sums_of<8 + kSparse>(weight, tokens);
    case 2 + kMapped:
      return tile_sums_of<2 + kMapped>(weight, tokens);
    case 3 + kMapped:
      return tile_sums_of<3 + kMapped>(weight, tokens);
    case 4 + kMapped:
      return tile_sums_of<4 + kMapped>(weight, tokens);
    default:
      return tile_sums_of<8>(weight, tokens);
  }
}

}  // namespace

void multiply_few_avx512(const Weight& weight, const Input& input, int halves, const Output& out,
                         int first, int last) {
  const int together = together_avx512(halves, out.halves);
  for (int tile = first; tile < last; ++tile) {
    for (int begin = 0; begin < halves; begin += together) {
      const int count = std::min(together, halves - begin);
      __m512 sums[kFewTogether];
      tile_sums_of(weight, count)(weight, weight.tile(tile), batch_of(input, begin), out.halves,
                                  sums);
      for (int t = 0; t < count; t += out.halves) {
        write(out, begin + t, tile, weight.rows - tile * kRows, sums[t + out.halves - 1]);
      }
    }
  }
}

}  // namespace whet::integer
