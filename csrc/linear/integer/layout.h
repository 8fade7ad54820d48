// How integer weights lie in memory, and what the tiers' code is given.
//
// Sixteen rows make a tile. A tile is one stream along the inputs: for each group the scales of the
// sixteen rows and, if affine, their zero points (a byte each), or their minima; then the group's steps. A step is
// the run of inputs that share an activation scale: blocks of 32 inputs, the last one shorter. A
// block of q quads (four inputs) holds codes [quad][row][4 inputs], a vector of 64 bytes a quad,
// split into planes of 8, 4, 2 and 1 bits:
//
//   bits    8      7          6      5      4    3      2
//   planes  8      4, 2, 1    4, 2   4, 1   4    2, 1   2        the first holds the lowest bits
//
// A plane of b bits packs 8/b quads into each 64 bytes: byte i of vector j holds byte i of quads
// j·8/b, j·8/b + 1, ... from its lowest bits up.
//
// Where not all weights are stored (symmetric codes of 4 and 8 bits, whichever are kept), a block
// holds a mask of 64 bits for each quad, bit 4·row + input, and then for each quad the codes kept,
// in the order of their bits; those of 4 bits two a byte, each quad from a byte of its own. So each
// block says where the next one begins, and tiles are of any length: a table, the second part of
// the layout, has where each begins, and where the last one ends. Beyond that lies an empty line,
// since whole vectors are read. Of what lies beyond the weight nothing is kept.
//
// Where codes of 2 to 4 bits stand for levels of a table, integers of int8, the third part of the layout is
// that table. Levels plus 128 are then what codes of 8 bits are otherwise, q, and z is 128.
//
// The product of a row r and a token t, in every tier in this order and with these roundings:
//
//   y = 0; for each step k:  y = fma(float(Σ_c (q[r,c] − z[r]) x[t,c]), s[r]·a[t,k], y)
//          with a minimum m: then y = fma(m[r], a[t,k]·float(Σ_c x[t,c]), y), and z is 0
//
// where x are int8 or int16, a their scales, s the weight's (times the table's unit, if any), and the sum is exact in 32 bits; so tiers agree to the
// last bit, and a token's result is the same in any batch.
//
// An int16 input is multiplied as two of int8: x = 256·h + l. A token then has two *halves*, which lie
// side by side in a batch as two tokens would; their sums are put together step by step.
#pragma once

#include <cstddef>
#include <cstdint>

#include "linear/matrix.h"

namespace whet::integer {

constexpr int kRows = 16;    // of a tile
constexpr int kQuads = 8;    // of a full block
constexpr int kBlock = 32;   // inputs of a full block
constexpr int kVector = 64;  // bytes of a quad of a tile

// Widths of the planes of a code, the lowest bits first; 0 ends.
struct Widths {
  int width[4];
};
static constexpr Widths widths_of(int bits) {
  switch (bits) {
    case 2:
      return {{2, 0, 0, 0}};
    case 3:
      return {{2, 1, 0, 0}};
    case 4:
      return {{4, 0, 0, 0}};
    case 5:
      return {{4, 1, 0, 0}};
    case 6:
      return {{4, 2, 0, 0}};
    case 7:
      return {{4, 2, 1, 0}};
    default:
      return {{8, 0, 0, 0}};
  }
}

// The coding of a block: the width of its codes, and whether only some are stored, or whether they
// stand for levels.
constexpr int kSparse = 16;
constexpr int kMapped = 32;
static constexpr int width_of(int coding) { return coding % kSparse; }
static constexpr bool is_sparse(int coding) { return (coding & kSparse) != 0; }
static constexpr bool is_mapped(int coding) { return (coding & kMapped) != 0; }
// The width of what is multiplied [bit].
static constexpr int value_width(int coding) { return is_mapped(coding) ? 8 : width_of(coding); }

// What mapped codes stand for.
constexpr int kLevels = 16;
struct LevelTable {
  uint8_t levels[kLevels];  // plus 128
  float unit;               // what all scales are multiplied by
};

// Bytes of the codes of a quad of which so many are stored.
static constexpr std::size_t kept_bytes(int coding, std::size_t count) {
  return width_of(coding) == 8 ? count : (count + 1) / 2;
}

// Bytes of a block of which all codes are stored.
static constexpr int block_bytes(int coding, int quads) {
  int vectors = 0;
  const Widths widths = widths_of(width_of(coding));
  for (int i = 0; i < 4 && widths.width[i] != 0; ++i) {
    const int packed = 8 / widths.width[i];
    vectors += (quads + packed - 1) / packed;
  }
  return vectors * kVector;
}

// A weight in its layout.
struct Weight {
  const uint8_t* tiles;
  const uint64_t* starts;  // of the tiles, and the end of the last; null where all are as long
  std::size_t tile_bytes;  // where all are
  const uint8_t* levels;   // sixteen bytes, where codes are mapped
  float unit;              // what scales are multiplied by
  int rows, cols, bits, coding;
  bool affine;
  bool minimum;
  Scale scale;
  int scale_bytes;
  int head;   // bytes before a group's steps
  int step;   // inputs
  int steps;  // of a row
  int group;  // steps of a group
  int step_bytes;  // where all codes are stored

  const uint8_t* tile(int number) const {
    return tiles + (starts != nullptr ? starts[number] : number * tile_bytes);
  }

  int tile_count() const { return (rows + kRows - 1) / kRows; }
  // What symmetric codes are less by.
  int half() const { return affine || minimum ? 0 : 1 << (value_width(coding) - 1); }
};

// Prepared activations. Halves (of int8 inputs, tokens) lie in batches of `together` (the last may
// have fewer): of a batch of n, codes [quad][n][4 inputs], scales [step][n] and negated sums of codes
// [step][n]. Of a token in halves the second has its scale and the sum of its codes of 16 bits, the
// first a sum of 0.
struct Input {
  const int8_t* codes;
  const float* scales;
  const int32_t* sums;  // −Σ x of each step
  std::size_t width;    // steps · step
  int steps;

  // Where the batch that begins with a half lies.
  const int8_t* codes_of(int half) const { return codes + half * width; }
  const float* scales_of(int half) const { return scales + static_cast<std::size_t>(half) * steps; }
  const int32_t* sums_of(int half) const { return sums + static_cast<std::size_t>(half) * steps; }
};

// Where the prepared numbers of one token go, of its second half one place further: n of `Input`.
struct Place {
  int8_t* codes;
  float* scales;
  int32_t* sums;
  int together;
};

// How activations are rounded.
struct Rounding {
  int cols, step, steps;
  int halves;   // of a token: 1, or 2 where inputs are int16
  bool token;   // a scale for the token, that of Activation int8-token; else one for each step
  float fixed;  // the token's scale, if it is known before
};

struct Output {
  float* y;
  int stride;
  bool accumulate;
  int halves;  // that are added up to a token
};

// How many of some halves lie in a batch of at most `most`: batches are as even as can be, and the
// halves of a token are in one.
static constexpr int evenly(int count, int most, int halves) {
  const int tokens = count / halves, at_most = most / halves;
  const int batches = (tokens + at_most - 1) / at_most;
  return (tokens + batches - 1) / batches * halves;
}

// What a tier offers.
struct Routines {
  // Writes codes, scales and sums of some steps of one token.
  void (*prepare)(const Rounding& rounding, const float* x, const Place& place, int first,
                  int last);
  int (*together)(int count, int halves);  // how many of some halves lie in a batch
  // Multiplies some tiles by `count` halves.
  void (*multiply)(const Weight& weight, const Input& input, int count, const Output& out,
                   std::byte* scratch, int first, int last);
  std::size_t (*scratch)(const Weight& weight, int count);  // bytes a thread
  int unit;                                                 // tiles that are best done together
};

extern const Routines kGeneric;
extern const Routines kAvx2;
extern const Routines kAvx512;
extern const Routines kNeon;
extern const Routines kDotprod;

// The weight inside a layout, bounds checked.
Weight weight_of(Bytes layout);

std::string refusal(const Planes& weight, Tier tier, Mode mode);
Aligned pack(const Planes& weight, Tier tier, Mode mode);
Stored unpack(Bytes layout);
std::unique_ptr<Matrix> open(Bytes layout, Tier tier);

}  // namespace whet::integer
