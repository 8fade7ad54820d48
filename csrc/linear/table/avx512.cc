// Table kernels with AVX-512, of two tiers: look up, multiply pairs of bf16 numbers, add in float32.
//
// A level that is no bf16 number (NF, powers of an odd base, learned levels, f16 and f32 weights)
// is split into the sum of two, `high + low`: 16 bits of it count, 2^8 times more than of the
// activations, which are bf16 here. That costs a second product, and is still faster than float32,
// whose products are four times rarer. At one token the second product hides behind the memory.
//
// Every path computes, for each row and token, the same sums in the same order: of a segment's high
// parts pair by pair, from 0 (or from what the zero point makes of the sum of x), then
// y = scale * sum + y; then the same of its low parts.
#include "linear/table/avx512.h"

#include "linear/table/avx512_decode.h"
#include "linear/table/kernel.h"

namespace whet::table::WHET_AVX512 {
namespace {

constexpr int kTokens = kMostTokens;   // of a register tile
constexpr int kPanelVectors = 512;      // bf16 vectors of a decoded panel: what L1 holds, nearly
constexpr int kPanelSegments = 64;

WHET_INLINE __m512bh pair_at(const std::uint32_t* x) {
  return as_bf16(_mm512_set1_epi32(static_cast<int>(*x)));
}

// Scales and zero points of a tile, a group at a time.
struct Parameters {
  const Layout& l;
  const std::byte* tile;
  __m512 tensor;

  WHET_INLINE Parameters(const Layout& layout, const std::byte* at)
      : l(layout), tile(at), tensor(_mm512_set1_ps(layout.tensor_scale)) {}
  WHET_INLINE __m512 scale(int group) const {
    if (l.coding.tensor) return tensor;
    return scales_at(l.coding.scale, tile + group * 16 * scale_size(l.coding.scale), l.global);
  }
  // What the sum of x is multiplied by: the middle code, which levels are counted from, less zero.
  WHET_INLINE __m512 offset(int group) const {
    const __m512 middle = _mm512_set1_ps(static_cast<float>(1 << (l.coding.bits - 1)));
    if (l.coding.tensor) return _mm512_sub_ps(middle, _mm512_set1_ps(l.tensor_zero));
    const auto* zeros = reinterpret_cast<const __m128i*>(tile + l.zeros + group * 16);
    return _mm512_sub_ps(middle, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(zeros))));
  }
};

WHET_INLINE void store_rows(float* y, __m512 sum, int rows, bool accumulate) {
  const __mmask16 mask = rows >= 16 ? 0xffff : static_cast<__mmask16>((1u << rows) - 1);
  if (accumulate) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), sum);
  _mm512_mask_storeu_ps(y, mask, sum);
}

WHET_INLINE const std::byte* tile_at(const Operand& w, int tile) {
  return w.bytes + w.layout->first + static_cast<std::size_t>(tile) * w.layout->tile_bytes;
}

WHET_INLINE const float* sums_of(const Layout& l, const Multiplication& m) {
  return reinterpret_cast<const float*>(m.input + sums_offset(l, m.tokens, 2));
}

// What strays of a tile give beyond what stands in for them, once the tile is summed.
void add_strays(const Operand& w, const Multiplication& m, int tile) {
  const Layout& l = *w.layout;
  const Strays strays = strays_of(l, w.bytes, tile);
  const Tiling tokens = tiling(m.tokens, kTokens);
  const auto* x = reinterpret_cast<const std::uint16_t*>(m.input);
  for (const Stray* stray = strays.begin; stray != strays.end; ++stray) {
    const float rest = bf16_to_f32(stray->number) - strays.stand_in;
    const std::size_t pair = stray->input / 2, half = stray->input % 2;
    float* y = m.y + 16 * tile + stray->row;
    for (int k = 0; k < tokens.count; ++k) {
      const int first = tile_start(tokens, k), count = tile_start(tokens, k + 1) - first;
      const auto* of_pair = x + static_cast<std::size_t>(first) * l.width + 2 * pair * count + half;
      for (int t = 0; t < count; ++t)
        y[static_cast<std::size_t>(first + t) * m.stride] += rest * bf16_to_f32(of_pair[2 * t]);
    }
  }
}

// Few tokens: every byte of the weight is read once and used in registers. Sums are chains of
// products, each of which waits for the one before; tiles side by side keep the multipliers busy.
template <class Decoder, int kTiles, int kT>
void few_tokens(const Operand& w, const Multiplication& m, int tile) {
  constexpr int kTerms = Decoder::kTerms;
  const Layout& l = *w.layout;
  const Decoder decoder(w.table);
  const float* sums = sums_of(l, m);
  const auto* x = reinterpret_cast<const std::uint32_t*>(m.input);
  const std::byte* codes = tile_at(w, tile) + l.codes;
  __m512 y[kTiles][kT], sum[kTiles][kT][kTerms];
  for (auto& of_tile : y)
    for (__m512& total : of_tile) total = _mm512_setzero_ps();
  for (int g = 0, segment = 0; g < l.groups; ++g) {
    const int length = group_length(l, g);
    for (int from = 0; from < length; from += l.segment, ++segment) {
      const int stop = length - from < l.segment ? length - from : l.segment;
      for (int k = 0; k < kTiles; ++k)
        for (int t = 0; t < kT; ++t) {
          for (__m512& term : sum[k][t]) term = _mm512_setzero_ps();
          if (l.coding.affine)
            sum[k][t][0] = _mm512_mul_ps(Parameters(l, tile_at(w, tile + k)).offset(g),
                                         _mm512_set1_ps(sums[segment * kT + t]));
        }
      for (int i = 0; i < stop; i += 2 * Decoder::kCount) {
        beside<Decoder, kTiles>([&](int) -> const Decoder& { return decoder; }, codes, l.tile_bytes,
                                kAhead,
                                [&](int k, int pair, __m512bh high, __m512bh low) {
                                  for (int t = 0; t < kT; ++t) {
                                    const __m512bh factor = pair_at(x + pair * kT + t);
                                    sum[k][t][0] = add_pairs(sum[k][t][0], high, factor);
                                    if constexpr (kTerms == 2)
                                      sum[k][t][1] = add_pairs(sum[k][t][1], low, factor);
                                  }
                                });
        codes += Decoder::kBytes;
        x += Decoder::kCount * kT;
      }
      for (int k = 0; k < kTiles; ++k) {
        const __m512 scale = Parameters(l, tile_at(w, tile + k)).scale(g);
        for (int t = 0; t < kT; ++t)
          for (const __m512& term : sum[k][t]) y[k][t] = _mm512_fmadd_ps(scale, term, y[k][t]);
      }
    }
  }
  for (int k = 0; k < kTiles; ++k)
    for (int t = 0; t < kT; ++t)
      store_rows(m.y + static_cast<std::size_t>(t) * m.stride + 16 * (tile + k), y[k][t],
                 l.rows - 16 * (tile + k), m.accumulate);
  for (int k = 0; k < kTiles; ++k) add_strays(w, m, tile + k);
}

template <class Decoder, int kT>
void few_tokens(const Operand& w, const Multiplication& m) {
  constexpr int kBeside = kT <= 2 ? 4 : 2;
  int tile = m.first;
  for (; tile + kBeside <= m.last; tile += kBeside) few_tokens<Decoder, kBeside, kT>(w, m, tile);
  for (; tile < m.last; ++tile) few_tokens<Decoder, 1, kT>(w, m, tile);
}

// Some segments of one or two tiles as bf16 vectors, [pair][term][tile], and what scales them.
struct Panel {
  alignas(64) std::uint16_t values[kPanelVectors * kLanes];
  alignas(64) float scale[kPanelSegments][2][16];
  alignas(64) float offset[kPanelSegments][2][16];
  int pairs[kPanelSegments];
  int segments, first;  // first: of the row
  int pair;             // of the row, the first here
};

// Where the next panel begins.
struct Cursor {
  int group = 0, from = 0, segment = 0, pair = 0;
};

// Chooses the next segments that fit a panel; returns whether there are any.
bool next_panel(const Layout& l, Cursor& cursor, Panel& panel, int width) {
  panel.segments = 0;
  panel.first = cursor.segment;
  panel.pair = cursor.pair;
  int room = kPanelVectors / width;
  while (cursor.group < l.groups && panel.segments < kPanelSegments) {
    const int length = group_length(l, cursor.group), left = length - cursor.from;
    const int pairs = (left < l.segment ? left : l.segment) / 2;
    if (pairs > room) break;
    room -= pairs;
    panel.pairs[panel.segments++] = pairs;
    cursor.from += 2 * pairs;
    cursor.pair += pairs;
    ++cursor.segment;
    if (cursor.from == length) ++cursor.group, cursor.from = 0;
  }
  return panel.segments > 0;
}

// Decodes the panel's segments of one tile; `width` vectors a pair, this tile's at `place`.
template <class Decoder>
void decode(const Operand& w, const std::byte* tile, Cursor start, Panel& panel, int place,
            int width) {
  const Layout& l = *w.layout;
  const Decoder decoder(w.table);
  const Parameters parameters(l, tile);
  const std::byte* codes =
      tile + l.codes + static_cast<std::size_t>(start.pair / Decoder::kCount) * Decoder::kBytes;
  std::uint16_t* out = panel.values + place * kLanes;
  for (int s = 0; s < panel.segments; ++s) {
    _mm512_store_ps(panel.scale[s][place], parameters.scale(start.group));
    if (l.coding.affine) _mm512_store_ps(panel.offset[s][place], parameters.offset(start.group));
    for (int i = 0; i < panel.pairs[s]; i += Decoder::kCount) {
      decoded(decoder, codes, [&](int pair, __m512bh high, __m512bh low) {
        _mm512_store_si512(out + pair * width * kLanes, (__m512i)high);
        if constexpr (Decoder::kTerms == 2)
          _mm512_store_si512(out + (pair * width + width / 2) * kLanes, (__m512i)low);
      });
      codes += Decoder::kBytes;
      out += Decoder::kCount * width * kLanes;
    }
    start.from += 2 * panel.pairs[s];
    if (start.from == group_length(l, start.group)) ++start.group, start.from = 0;
  }
}

// One panel times some tokens: `sums` and `y` are this tile of tokens', [token][16 * tiles].
struct Block {
  const Panel* panel;
  const std::uint32_t* x;
  const float* sums;  // null if the format has no zero point
  int sums_stride;
  float* y;
};

template <int kTokensHere, int kTiles, int kTerms>
void multiply_block(const Block& b) {
  const Panel& panel = *b.panel;
  const std::uint16_t* values = panel.values;
  const std::uint32_t* x = b.x;
  for (int s = 0; s < panel.segments; ++s) {
    for (int j = 0; j < kTerms; ++j) {
      __m512 sum[kTokensHere][kTiles];
      for (int t = 0; t < kTokensHere; ++t)
        for (int i = 0; i < kTiles; ++i)
          sum[t][i] = b.sums && j == 0
                          ? _mm512_mul_ps(_mm512_load_ps(panel.offset[s][i]),
                                          _mm512_set1_ps(b.sums[s * b.sums_stride + t]))
                          : _mm512_setzero_ps();
      for (int p = 0; p < panel.pairs[s]; ++p) {
        __m512bh value[kTiles];
        for (int i = 0; i < kTiles; ++i)
          value[i] = as_bf16(_mm512_load_si512(values + ((p * kTerms + j) * kTiles + i) * kLanes));
        for (int t = 0; t < kTokensHere; ++t) {
          const __m512bh factor = pair_at(x + p * kTokensHere + t);
          for (int i = 0; i < kTiles; ++i)
            sum[t][i] = add_pairs(sum[t][i], value[i], factor);
        }
      }
      for (int t = 0; t < kTokensHere; ++t)
        for (int i = 0; i < kTiles; ++i) {
          float* y = b.y + (t * kTiles + i) * 16;
          _mm512_store_ps(
              y, _mm512_fmadd_ps(_mm512_load_ps(panel.scale[s][i]), sum[t][i], _mm512_load_ps(y)));
        }
    }
    values += panel.pairs[s] * kTiles * kTerms * kLanes;
    x += panel.pairs[s] * kTokensHere;
  }
}

using BlockKernel = void (*)(const Block&);

template <int kTiles, int kTerms>
BlockKernel block_kernel(int tokens) {
  static constexpr auto kernels = []<int... kT>(std::integer_sequence<int, kT...>) {
    struct All {
      BlockKernel of[kTokens];
    };
    return All{{multiply_block<kT + 1, kTiles, kTerms>...}};
  }(std::make_integer_sequence<int, kTokens>{});
  return kernels.of[tokens - 1];
}

BlockKernel block_kernel(int tokens, int tiles, int terms) {
  if (tiles == 2) return terms == 2 ? block_kernel<2, 2>(tokens) : block_kernel<2, 1>(tokens);
  return terms == 2 ? block_kernel<1, 2>(tokens) : block_kernel<1, 1>(tokens);
}

// Several tokens: panels of 32 rows are decoded once, and multiplied with tile after tile of
// tokens.
template <class Decoder>
void many_tokens(const Operand& w, const Multiplication& m) {
  const Layout& l = *w.layout;
  Panel& panel = *reinterpret_cast<Panel*>(m.scratch);
  float* y = reinterpret_cast<float*>(m.scratch + sizeof(Panel));
  const Tiling tokens = tiling(m.tokens, kTokens);
  for (int tile = m.first; tile < m.last; tile += 2) {
    const int tiles = m.last - tile < 2 ? 1 : 2, width = tiles * l.terms;
    std::memset(y, 0, sizeof(float) * 16 * tiles * m.tokens);
    Cursor cursor, start;
    while (next_panel(l, cursor, panel, width)) {
      for (int i = 0; i < tiles; ++i)
        decode<Decoder>(w, tile_at(w, tile + i), start, panel, i, width);
      start = cursor;
      for (int k = 0; k < tokens.count; ++k) {
        const int first = tile_start(tokens, k), count = tile_start(tokens, k + 1) - first;
        const auto* x = reinterpret_cast<const std::uint32_t*>(m.input) +
                        static_cast<std::size_t>(first) * (l.width / 2) + panel.pair * count;
        const float* sums =
            l.coding.affine ? sums_of(l, m) + panel.first * m.tokens + first : nullptr;
        block_kernel(count, tiles, l.terms)({&panel, x, sums, m.tokens, y + first * tiles * 16});
      }
    }
    for (int t = 0; t < m.tokens; ++t)
      for (int i = 0; i < tiles; ++i)
        store_rows(m.y + static_cast<std::size_t>(t) * m.stride + 16 * (tile + i),
                   _mm512_load_ps(y + (t * tiles + i) * 16), l.rows - 16 * (tile + i),
                   m.accumulate);
    for (int i = 0; i < tiles; ++i) add_strays(w, m, tile + i);
  }
}

// Whether so many tokens are multiplied without a panel.
bool few(int tokens) { return tokens == 1 || tokens == 2 || tokens == 4; }

std::size_t scratch_bytes(const Layout& l, int tokens) {
  if (l.form == Form::rowwise) return rowwise_scratch(l, tokens);
  return few(tokens) ? 0 : sizeof(Panel) + sizeof(float) * 32 * static_cast<std::size_t>(tokens);
}

void multiply(const Operand& w, const Multiplication& m) {
  if (w.layout->form == Form::rowwise) return rowwise(w, m);
  with_decoder(*w.layout, w.table, [&]<class Decoder>() {
    switch (m.tokens) {
      case 1:
        return few_tokens<Decoder, 1>(w, m);
      case 2:
        return few_tokens<Decoder, 2>(w, m);
      case 4:
        return few_tokens<Decoder, 4>(w, m);
      default:
        return many_tokens<Decoder>(w, m);
    }
  });
}

}  // namespace

const Kernels kKernels{kTokens, 2, prepare, scratch_bytes, multiply};

}  // namespace whet::table::WHET_AVX512
