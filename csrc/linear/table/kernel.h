// What a tier offers for a laid-out weight: preparing activations, and multiplying.
#pragma once

#include <cstddef>
#include <cstdint>

#include "linear/table/layout.h"

namespace whet::table {

// What the codes of a matrix mean, in the shapes that kernels look it up in.
//
// A level is the sum of `high` and `low`, two bf16 numbers (low is 0 where high is exact). Tables
// of fewer than 32 entries are repeated, so that an index's upper bits do not matter.
struct Table {
  alignas(64) float values[256];
  alignas(64) std::uint16_t high[256];
  alignas(64) std::uint16_t low[256];
  alignas(64) std::uint8_t bytes[4][256];  // of high (lower, upper), of low
  bool mirrored = false;  // 8 bits, and the upper half is the lower one with the sign turned
};

// Fills a table from 2^bits levels.
void fill(Table& table, const float* values, int bits);
// Fills the upper bytes of split numbers in, repeated as all tables are.
void fill_uppers(Table& table, const std::uint8_t* uppers);

struct Operand {
  const Layout* layout;
  const std::byte* bytes;  // of the layout, from its header
  const Table* table;      // null for plain numbers that are not split, and tables of rows
};

// Tokens are cut into tiles of nearly equal width, none above `most`.
struct Tiling {
  int tokens, count;
};
static inline Tiling tiling(int tokens, int most) { return {tokens, (tokens + most - 1) / most}; }
static inline int tile_start(Tiling t, int i) {
  const int each = t.tokens / t.count, more = t.tokens % t.count;
  return i * each + (i < more ? i : more);
}

// Activations as a tier wants them. Interleaved: for each tile of tokens [input or pair][token];
// rowwise: [token][input]. Inputs are at their padded places. After them, for affine formats, the
// sums of the rounded activations over each segment, [segment][token].
struct Multiplication {
  const std::byte* input;
  int tokens;
  float* y;
  int stride;
  bool accumulate;
  std::byte* scratch;  // of this thread
  int first, last;     // tiles of the weight
};

struct Kernels {
  int token_tile;    // most tokens of an interleaved tile
  int number_bytes;  // of a prepared activation: 2 (bf16) or 4 (bf16 values as float32)
  // Inputs [first, last) of the padded row, multiples of 64 (or the end).
  void (*prepare)(const Layout&, const float* x, int stride, int tokens, std::byte* input,
                  int first, int last);
  std::size_t (*scratch_bytes)(const Layout&, int tokens);
  void (*multiply)(const Operand&, const Multiplication&);
};

extern const Kernels kGeneric;
#if defined(__x86_64__) || defined(_M_X64)
extern const Kernels kAvx2;
namespace avx512 {
extern const Kernels kKernels;
}
namespace avx512bf16 {
extern const Kernels kKernels;
}
#elif defined(__aarch64__)
extern const Kernels kNeon;
#endif

static inline std::size_t sums_offset(const Layout& l, int tokens, int number_bytes) {
  return (static_cast<std::size_t>(l.width) * tokens * number_bytes + 63) / 64 * 64;
}

}  // namespace whet::table
