// A weight laid out for the table kernels: what the header says and where things lie.
//
// Two forms. *Interleaved* (one table for the matrix, or plain numbers): a tile is 16 rows; vector
// i of a block holds inputs 2i and 2i + 1 of the 16 rows, word 2r + j being row r and input 2i + j,
// as products of pairs want it. *Rowwise* (a table for each row): a tile is one row; vector i of a
// block holds inputs 32 i to 32 i + 31.
//
// A tile is one range of bytes: its scales (a vector of 16 for each group, in their stored type),
// its zero points, its levels, then its codes; it begins and its codes begin at multiples of 64
// bytes. The inputs of each group are padded to whole blocks (`slot`), and the activations likewise
// with zeros: any group of any size is laid out, and sizes that are multiples of `unit` without
// waste.
//
// A group is summed in *segments* of a bounded length: y = scale * (sum of a segment) + y, segment
// by segment in order, whatever the number of tokens. That order is part of the layout's meaning:
// it is why a token's result does not depend on how many others are in the batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "linear/matrix.h"

namespace whet::table {

enum class Number : std::uint8_t { code, bf16, f16, f32 };
enum class Form : std::uint8_t { interleaved, rowwise };

// Stored bytes of a scale; here once more so that every tier compiles its own.
static constexpr int scale_size(Scale kind) {
  return kind == Scale::none                         ? 0
         : kind == Scale::f32                        ? 4
         : kind == Scale::bf16 || kind == Scale::f16 ? 2
                                                     : 1;
}

// A scalar format, apart from the size of a matrix.
struct Coding {
  Number number = Number::code;
  int bits = 4;             // of a code
  int group = 0;            // inputs that share a scale; 0: the row
  bool tensor = false;      // one scale for the matrix
  bool affine = false;      // unsigned codes and zero points, which are codes too
  bool row_levels = false;  // a table for each row
  Scale scale = Scale::bf16;

  bool operator==(const Coding&) const = default;
};

// Canonical planes of a matrix, borrowed; those that a format lacks are null.
struct Source {
  const std::uint8_t* codes = nullptr;    // rows of dense bit streams
  const std::byte* value = nullptr;       // plain numbers, row-major
  const std::byte* scale = nullptr;       // [rows, groups] or one
  const std::uint8_t* zero = nullptr;     // packed along the rows: [bytes, groups], or one
  const float* global = nullptr;          // of scale type e4m3
  const float* base = nullptr;            // of tuned powers; kept, not used
  const float* values = nullptr;          // [2^bits] what a code means; not with row_levels
  const std::uint16_t* levels = nullptr;  // [rows, 2^bits] f16; only with row_levels
};

// Mutable twin of `Source`, for unpacking.
struct Sink {
  std::uint8_t* codes = nullptr;
  std::byte* value = nullptr;
  std::byte* scale = nullptr;
  std::uint8_t* zero = nullptr;
  std::uint16_t* levels = nullptr;
};

constexpr std::uint32_t kMagic = 0x4c425457;  // "WTBL"
constexpr std::uint32_t kVersion = 1;

struct Layout {
  std::uint32_t magic = kMagic, version = kVersion;
  Coding coding;
  std::uint8_t terms = 1;  // bf16 numbers that add up to a level
  Form form = Form::interleaved;
  bool has_base = false;
  std::int32_t rows = 0, cols = 0;
  std::int32_t group = 0,
               groups = 0;          // inputs of a group (the row's, where it has one), and groups
  std::int32_t unit = 0;            // inputs of a block
  std::int32_t slot = 0, last = 0;  // padded inputs of a group, and of the last one
  std::int32_t padded = 0;          // inputs of a padded row
  std::int32_t width = 0;           // inputs of prepared activations
  std::int32_t segment = 0;         // inputs that are summed before they are scaled
  std::int32_t segments = 0;        // of a row
  std::int32_t tile_rows = 0, tiles = 0;
  float global = 1, base = 0, tensor_scale = 1, tensor_zero = 0;
  std::uint32_t tensor_raw = 0;                                    // the one scale as it is stored
  std::uint64_t zeros = 0, levels = 0, codes = 0, tile_bytes = 0;  // offsets in a tile; scales at 0
  std::uint64_t values = 0, first = 0, bytes = 0;  // offsets of the table, of the tiles, the end
};

// Padded position of input `c`.
static inline int place(const Layout& l, int c) {
  return l.slot == l.group ? c : c / l.group * l.slot + c % l.group;
}
static inline int group_length(const Layout& l, int g) {
  return g + 1 == l.groups ? l.last : l.slot;
}

// Why a matrix of this format and size has no layout; empty if it has one.
std::string refusal(const Coding& coding, int rows, int cols);

// The geometry of a matrix; `terms` is 2 where a level is no bf16 number.
Layout plan(const Coding& coding, int rows, int cols, int terms);

// The layout of a matrix with these planes: what the header says of them is filled in.
Layout planned(const Coding& coding, const Source& source, int rows, int cols);

// Lays out planes, header and all, in `layout.bytes` zeros, and undoes it: `unpack(pack(x)) == x`.
void pack(const Layout& layout, const Source& source, std::byte* bytes);
void unpack(const std::byte* bytes, const Sink& sink);

// The checked header of laid-out bytes; null if they are none, or are cut short.
const Layout* header(const std::byte* bytes, std::size_t size);

}  // namespace whet::table
