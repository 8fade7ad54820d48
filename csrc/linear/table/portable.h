// The tiers that multiply in float32: decode a segment to float32, add it up for every token.
//
// Included by one translation unit for each such tier, which defines the functions of `Lanes`: how
// a block's codes become values, and the innermost loops. Levels are exact here, activations are
// rounded to bf16 as in the AVX-512 tier. Order of sums: within a segment input by input from 0 (or
// from what the zero point makes of the sum of x); y = scale * sum + y. The number of tokens does
// not matter.
#pragma once

#include <cstring>
#include <utility>

#include "base/half.h"
#include "linear/table/blocks.h"
#include "linear/table/kernel.h"

namespace whet::table {
namespace {

constexpr int kRows = 16;      // of a tile
constexpr int kSegment = 512;  // longest

float stored_scale(Scale kind, const std::byte* at, float global) {
  std::uint8_t byte = 0;
  std::uint16_t half = 0;
  float whole = 1;
  switch (kind) {
    case Scale::bf16:
      std::memcpy(&half, at, 2);
      return bf16_to_f32(half);
    case Scale::f16:
      std::memcpy(&half, at, 2);
      return f16_to_f32(half);
    case Scale::f32:
      std::memcpy(&whole, at, 4);
      return whole;
    case Scale::e8m0: {
      std::memcpy(&byte, at, 1);
      const std::uint32_t bits = byte ? static_cast<std::uint32_t>(byte) << 23 : 0x00400000u;
      std::memcpy(&whole, &bits, 4);
      return whole;
    }
    case Scale::e4m3:
      std::memcpy(&byte, at, 1);
      return f16_to_f32(static_cast<std::uint16_t>((byte & 0x80) << 8 | (byte & 0x7f) << 7)) *
             (256 * global);
    case Scale::none:
      break;
  }
  return 1;
}

// What a translation unit defines.
struct Lanes {
  static constexpr int kTokens = 4;  // of an interleaved tile
  // The values of a block, vector by vector, as the form of the layout orders them.
  static void block(int bits, const std::byte* at, const float* table, bool by_row, float* out);
  // y[token][row] += scale * (offset * sum of x + products) of a segment of 16 rows.
  static void rows(const float* values, const float* scale, const float* offset, const float* x,
                   const float* sums, int tokens, int inputs, float* y);
  // The same of one row, its sum spread over 16 lanes; tokens lie `width` apart.
  static void row(const float* values, float scale, const float* x, int width, int tokens,
                  int inputs, float* y);
};

// A tile, decoded segment by segment: values are [input][row], or [input] of the one row.
struct Reader {
  const Operand& w;
  const Layout& l;
  const std::byte* tile;
  alignas(64) float levels[256];  // of the row, where each has its own

  Reader(const Operand& operand, int index)
      : w(operand),
        l(*operand.layout),
        tile(operand.bytes + l.first + static_cast<std::size_t>(index) * l.tile_bytes) {
    if (!l.coding.row_levels) return;
    for (int i = 0; i < 256; ++i) {
      std::uint16_t half;
      std::memcpy(&half, tile + l.levels + 2 * (i % (1 << l.coding.bits)), 2);
      levels[i] = f16_to_f32(half);
    }
  }

  float scale(int group, int row) const {
    if (l.coding.tensor) return l.tensor_scale;
    const int at = group * l.tile_rows + row;
    return stored_scale(l.coding.scale, tile + at * scale_size(l.coding.scale), l.global);
  }
  float offset(int group, int row) const {
    const float middle = static_cast<float>(1 << (l.coding.bits - 1));
    if (l.coding.tensor) return middle - l.tensor_zero;
    return middle - static_cast<float>(tile[l.zeros + group * l.tile_rows + row]);
  }

  // Inputs [at, at + count) of the padded row. A block of a rowwise layout may span segments, so
  // it decodes vectors; `vector` holds 32 words of codes' values.
  void decode(int at, int count, float* out) const {
    if (l.split) return split(at, count, out);
    if (l.coding.number != Number::code) return plain(at, count, out);
    const int bits = l.coding.bits;
    const float* table = l.coding.row_levels ? levels : w.table->values;
    const int codes = block_codes(bits), size = block_words(bits) * kVectorBytes;
    const int each = l.form == Form::rowwise ? kLanes : 2;  // inputs of a vector
    const int first = at / each, last = (at + count) / each;
    for (int block = first / codes; block * codes < last; ++block) {
      alignas(64) float values[16 * kLanes];
      Lanes::block(bits, tile + l.codes + static_cast<std::size_t>(block) * size, table,
                   l.form == Form::rowwise, values);
      const int from = block * codes > first ? block * codes : first;
      const int to = (block + 1) * codes < last ? (block + 1) * codes : last;
      std::memcpy(out + (from - first) * kLanes, values + (from - block * codes) * kLanes,
                  sizeof(float) * kLanes * (to - from));
    }
  }

  // Strays are added later.
  void split(int at, int count, float* out) const {
    const std::byte* from = tile + l.codes;
    for (int c = at; c < at + count; ++c, out += kRows)
      for (int r = 0; r < kRows; ++r) {
        const SplitPlace place = split_place(r, c);
        const unsigned code = static_cast<unsigned>(from[place.code]) >> place.shift & 15;
        const unsigned upper = w.table->bytes[1][code];
        out[r] = bf16_to_f32(
            static_cast<std::uint16_t>(upper << 8 | static_cast<unsigned>(from[place.lower])));
      }
  }

  void plain(int at, int count, float* out) const {
    const std::byte* from = tile + l.codes;
    for (int p = at / 2; p < (at + count) / 2; ++p)
      for (int j = 0; j < 2; ++j, out += kRows)
        for (int r = 0; r < kRows; ++r) {
          std::uint16_t half;
          if (l.coding.number == Number::f32) {
            std::memcpy(out + r, from + static_cast<std::size_t>(p) * 128 + (16 * j + r) * 4, 4);
          } else if (l.coding.number == Number::f16) {
            std::memcpy(&half, from + static_cast<std::size_t>(p) * 64 + (16 * j + r) * 2, 2);
            out[r] = f16_to_f32(half);
          } else {
            std::memcpy(&half, from + static_cast<std::size_t>(p) * 64 + (2 * r + j) * 2, 2);
            out[r] = bf16_to_f32(half);
          }
        }
  }
};

template <int kIndex, int kBits>
void scalar_code(const std::uint16_t* words, const float* table, bool by_row, float* out) {
  for (int k = 0; k < kLanes; ++k) {
    const float value = table[code_of(words + k, kBits, kIndex)];
    out[kIndex * kLanes + (by_row ? k : k % 2 * kRows + k / 2)] = value;
  }
}

// A block in portable code: vector by vector, as the layout's form orders it.
template <int kBits>
void scalar_block(const std::byte* at, const float* table, bool by_row, float* out) {
  std::uint16_t words[block_words(kBits) * kLanes];
  std::memcpy(words, at, sizeof words);
  [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) {
    (scalar_code<kIndex, kBits>(words, table, by_row, out), ...);
  }(std::make_integer_sequence<int, block_codes(kBits)>{});
}

// The inputs that a segment really has, as columns of x.
struct Columns {
  int first, count;
};

Columns columns_of(const Layout& l, int group, int from) {
  const int first = group * l.group + from;
  int count = l.group - from < l.cols - first ? l.group - from : l.cols - first;
  count = count < 0 ? 0 : count < l.segment ? count : l.segment;
  return {first, count};
}

float rounded(float x) { return bf16_to_f32(f32_to_bf16(x)); }

template <class Visit>
void each_segment(const Layout& l, Visit&& visit) {
  for (int g = 0, segment = 0; g < l.groups; ++g)
    for (int from = 0; from < group_length(l, g); from += l.segment, ++segment) {
      const int left = group_length(l, g) - from;
      visit(g, from, left < l.segment ? left : l.segment, segment);
    }
}

void prepare(const Layout& l, const float* x, int stride, int tokens, std::byte* input, int first,
             int last) {
  auto* out = reinterpret_cast<float*>(input);
  auto* sums = reinterpret_cast<float*>(input + sums_offset(l, tokens, 4));
  const Tiling tiles = tiling(tokens, l.form == Form::rowwise ? 1 : Lanes::kTokens);
  for (int k = 0; k < tiles.count; ++k) {
    const int start = tile_start(tiles, k), count = tile_start(tiles, k + 1) - start;
    float* to = out + static_cast<std::size_t>(start) * l.width;
    for (int at = first; at < last; ++at) {
      const int inside = at % l.slot, c = at / l.slot * l.group + inside;
      const bool real = inside < l.group && c < l.cols;
      for (int t = 0; t < count; ++t)
        to[static_cast<std::size_t>(at) * count + t] =
            real ? rounded(x[static_cast<std::size_t>(start + t) * stride + c]) : 0;
    }
  }
  if (!l.coding.affine) return;
  each_segment(l, [&](int g, int from, int, int segment) {
    if (g * l.slot + from < first || g * l.slot + from >= last) return;
    const Columns columns = columns_of(l, g, from);
    for (int t = 0; t < tokens; ++t) {
      float sum = 0;
      for (int c = columns.first; c < columns.first + columns.count; ++c)
        sum += rounded(x[static_cast<std::size_t>(t) * stride + c]);
      sums[static_cast<std::size_t>(segment) * tokens + t] = sum;
    }
  });
}

// Values of a segment, its scales and offsets, and the sums of all tokens.
struct Work {
  alignas(64) float values[kSegment * kRows];
  alignas(64) float scale[kRows];
  alignas(64) float offset[kRows];
};

std::size_t scratch_bytes(const Layout&, int tokens) {
  return sizeof(Work) + sizeof(float) * kRows * static_cast<std::size_t>(tokens);
}

void one_tile(const Operand& w, const Multiplication& m, int index) {
  const Layout& l = *w.layout;
  const Reader reader(w, index);
  Work& work = *reinterpret_cast<Work*>(m.scratch);
  float* y = reinterpret_cast<float*>(m.scratch + sizeof(Work));
  const auto* sums = reinterpret_cast<const float*>(m.input + sums_offset(l, m.tokens, 4));
  const Tiling tiles = tiling(m.tokens, Lanes::kTokens);
  const bool by_row = l.form == Form::rowwise;
  std::memset(y, 0, sizeof(float) * kRows * m.tokens);
  each_segment(l, [&](int g, int from, int count, int segment) {
    const int at = g * l.slot + from;
    reader.decode(at, count, work.values);
    for (int r = 0; r < kRows; ++r) {
      work.scale[r] = reader.scale(g, by_row ? 0 : r);
      work.offset[r] = l.coding.affine ? reader.offset(g, r) : 0;
    }
    const auto* input = reinterpret_cast<const float*>(m.input);
    if (by_row)
      return Lanes::row(work.values, work.scale[0], input + at, l.width, m.tokens, count, y);
    for (int k = 0; k < tiles.count; ++k) {
      const int start = tile_start(tiles, k), tokens = tile_start(tiles, k + 1) - start;
      const float* x =
          input + static_cast<std::size_t>(start) * l.width + static_cast<std::size_t>(at) * tokens;
      const float* sum =
          l.coding.affine ? sums + static_cast<std::size_t>(segment) * m.tokens + start : nullptr;
      Lanes::rows(work.values, work.scale, work.offset, x, sum, tokens, count, y + start * kRows);
    }
  });
  const int left = l.rows - index * l.tile_rows, rows = left < l.tile_rows ? left : l.tile_rows;
  for (int t = 0; t < m.tokens; ++t)
    for (int r = 0; r < rows; ++r) {
      float total = y[t * kRows + r];
      for (int i = 1; by_row && i < kRows; ++i) total += y[t * kRows + i];
      float* to = m.y + static_cast<std::size_t>(t) * m.stride + index * l.tile_rows + r;
      *to = m.accumulate ? *to + total : total;
    }
}

// What strays of a tile give beyond what stands in for them.
void add_strays(const Operand& w, const Multiplication& m, int index) {
  const Strays strays = strays_of(*w.layout, w.bytes, index);
  const Tiling tiles = tiling(m.tokens, Lanes::kTokens);
  for (const Stray* stray = strays.begin; stray != strays.end; ++stray) {
    const float rest = bf16_to_f32(stray->number) - strays.stand_in;
    float* y = m.y + index * kRows + stray->row;
    for (int k = 0; k < tiles.count; ++k) {
      const int start = tile_start(tiles, k), count = tile_start(tiles, k + 1) - start;
      const float* x = reinterpret_cast<const float*>(m.input) +
                       static_cast<std::size_t>(start) * w.layout->width +
                       static_cast<std::size_t>(stray->input) * count;
      for (int t = 0; t < count; ++t)
        y[static_cast<std::size_t>(start + t) * m.stride] += rest * x[t];
    }
  }
}

void multiply(const Operand& w, const Multiplication& m) {
  for (int index = m.first; index < m.last; ++index) {
    one_tile(w, m, index);
    add_strays(w, m, index);
  }
}

}  // namespace
}  // namespace whet::table
