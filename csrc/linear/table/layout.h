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
// Numbers of bf16 may be *split*: their upper bytes (the sign and all but the last bit of the
// exponent) take so few values that a code of 4 bits and a table of 16 hold nearly all of them; the
// lower bytes lie as they are. That is 12 bits a weight, and loses nothing: the few numbers whose
// upper byte is not in the table, the *strays*, are listed after the tiles, and stand for the
// table's first entry in the codes. Kernels add what is missing at last.
//
// A group is summed in *segments* of a bounded length: y = scale * (sum of a segment) + y, segment
// by segment in order, whatever the number of tokens. That order is part of the layout's meaning:
// it is why a token's result does not depend on how many others are in the batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "base/half.h"
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
constexpr std::uint32_t kVersion = 2;
constexpr int kUppers = 16;       // entries of the table of split numbers
constexpr int kSplitBytes = 192;  // of a block of them, 8 inputs of 16 rows

// A number that its code does not give.
struct Stray {
  std::uint32_t input;  // at its padded place
  std::uint16_t row;    // of the tile
  std::uint16_t number;
};

struct Layout {
  std::uint32_t magic = kMagic, version = kVersion;
  Coding coding;
  std::uint8_t terms = 1;  // bf16 numbers that add up to a level
  Form form = Form::interleaved;
  bool split = false;
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
  std::uint64_t strays = 0;                        // how many
  std::uint64_t starts = 0;  // offset of each tile's first stray's index, and the end's; then strays
};

// Bytes of the starts of strays, padded.
static constexpr std::uint64_t strays_offset(int tiles) {
  return (static_cast<std::uint64_t>(tiles) + 1 + 15) / 16 * 64;
}

// Padded position of input `c`.
static inline int place(const Layout& l, int c) {
  return l.slot == l.group ? c : c / l.group * l.slot + c % l.group;
}
static inline int group_length(const Layout& l, int g) {
  return g + 1 == l.groups ? l.last : l.slot;
}

// The strays of a tile, and what a stray's code says instead of it.
struct Strays {
  const Stray *begin, *end;
  float stand_in;
};
static inline Strays strays_of(const Layout& l, const std::byte* bytes, int tile) {
  if (l.strays == 0) return {nullptr, nullptr, 0};
  const auto* starts = reinterpret_cast<const std::uint32_t*>(bytes + l.starts);
  const auto* all = reinterpret_cast<const Stray*>(bytes + l.starts + strays_offset(l.tiles));
  const auto upper = static_cast<std::uint16_t>(bytes[l.values]);
  return {all + starts[tile], all + starts[tile + 1],
          bf16_to_f32(static_cast<std::uint16_t>(upper << 8))};
}

// Where the two bytes of a split number are, from the first byte of the codes, and by how much its
// code is shifted. The order is that of registers that put them together: a vector has the lower
// bytes of two pairs of inputs, 8 words of the first and 8 of the second in each 128 bits; two such
// vectors come first, then their codes in one, those of the first vector in the lower halves.
struct SplitPlace {
  std::size_t lower, code;
  int shift;
};
static inline SplitPlace split_place(int row, int input) {
  const int pair = input / 2 % 4, word = 2 * row + input % 2;
  const std::size_t block = static_cast<std::size_t>(input / 8) * kSplitBytes;
  const std::size_t inside = word / 8 * 16 + pair % 2 * 8 + word % 8;
  return {block + pair / 2 * 64 + inside, block + 128 + inside, pair / 2 * 4};
}

// Why a matrix of this format and size has no layout; empty if it has one.
std::string refusal(const Coding& coding, int rows, int cols);

// The geometry of a matrix; `terms` is 2 where a level is no bf16 number. Split, if it has a number
// of strays.
Layout plan(const Coding& coding, int rows, int cols, int terms,
            std::optional<std::uint64_t> strays = {});

// The layout of a matrix with these planes: what the header says of them is filled in. Numbers are
// split where that is asked for and strays are rare.
Layout planned(const Coding& coding, const Source& source, int rows, int cols, bool split);

// Lays out planes, header and all, in `layout.bytes` zeros, and undoes it: `unpack(pack(x)) == x`.
void pack(const Layout& layout, const Source& source, std::byte* bytes);
void unpack(const std::byte* bytes, const Sink& sink);

// The checked header of laid-out bytes; null if they are none, or are cut short.
const Layout* header(const std::byte* bytes, std::size_t size);

}  // namespace whet::table
