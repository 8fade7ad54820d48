#include "linear/table/layout.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "linear/table/blocks.h"

namespace whet::table {
namespace {

constexpr std::uint64_t kLine = 64;
constexpr int kPairs = 8;          // inputs of a block of plain numbers
constexpr int kLongest = 1 << 28;  // of rows and of columns; keeps sizes in range
constexpr std::uint64_t kRare = 1024;  // among so many numbers a stray is worth its place

std::uint64_t lines(std::uint64_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }
int ceiling(int value, int step) { return (value + step - 1) / step; }
int padded_to(int value, int step) { return ceiling(value, step) * step; }

int number_bytes(Number element) {
  return element == Number::f32 ? 4 : element == Number::code ? 0 : 2;
}

float wide(Scale kind, const std::byte* at, float global) {
  std::uint8_t byte;
  std::uint16_t half;
  float whole;
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
    case Scale::e8m0:
      std::memcpy(&byte, at, 1);
      return byte ? std::ldexp(1.0f, byte - 127) : 0x1p-127f;
    case Scale::e4m3:
      std::memcpy(&byte, at, 1);
      return f16_to_f32(static_cast<std::uint16_t>((byte & 0x80) << 8 | (byte & 0x7f) << 7)) *
             256.0f * global;
    case Scale::none:
      break;
  }
  return 1;
}

// Reads a code of a dense little-endian bit stream, or writes it into zeros.
unsigned read_bits(const std::uint8_t* row, std::size_t i, int bits) {
  const std::size_t bit = i * bits, byte = bit / 8;
  unsigned both = row[byte];
  if (bit % 8 + bits > 8) both |= static_cast<unsigned>(row[byte + 1]) << 8;
  return both >> bit % 8 & ((1u << bits) - 1);
}

void write_bits(std::uint8_t* row, std::size_t i, int bits, unsigned code) {
  const std::size_t bit = i * bits, byte = bit / 8;
  row[byte] = static_cast<std::uint8_t>(row[byte] | code << bit % 8);
  if (bit % 8 + bits > 8) row[byte + 1] = static_cast<std::uint8_t>(code >> (8 - bit % 8));
}

std::size_t row_bytes(const Layout& l) {
  return (static_cast<std::size_t>(l.cols) * l.coding.bits + 7) / 8;
}

// The vector, word and block that hold an input of a row of a tile.
struct Home {
  std::uint64_t block;  // [byte]
  int lane, code;
};

Home home(const Layout& l, int row, int position) {
  const int codes = block_codes(l.coding.bits), words = block_words(l.coding.bits);
  int vector, lane;
  if (l.form == Form::rowwise) {
    vector = position / kLanes;
    lane = position % kLanes;
  } else {
    vector = position / 2;
    lane = 2 * row + position % 2;
  }
  return {static_cast<std::uint64_t>(vector / codes) * words * kVectorBytes, lane, vector % codes};
}

// Calls visit(row in the tile, row of the matrix).
template <class F>
void each_row(const Layout& l, int tile, F&& visit) {
  const int first = tile * l.tile_rows, count = std::min(l.tile_rows, l.rows - first);
  for (int r = 0; r < count; ++r) visit(r, first + r);
}

template <class F>
void each_code(const Layout& l, int row, F&& visit) {
  for (int c = 0; c < l.cols; ++c) visit(c, home(l, row, place(l, c)));
}

// Where a plain number that is not split lies in a tile: pairs for 16-bit numbers, two vectors of
// 16 for float32.
std::uint64_t number_at(const Layout& l, int row, int position) {
  const std::uint64_t pair = position / 2;
  if (l.coding.number == Number::bf16) return pair * 64 + (2 * row + position % 2) * 2;
  const std::uint64_t size = number_bytes(l.coding.number);
  return pair * 32 * size + (16 * (position % 2) + row) * size;
}

std::byte* tile_of(const Layout& l, std::byte* bytes, int tile) {
  return bytes + l.first + static_cast<std::uint64_t>(tile) * l.tile_bytes;
}
const std::byte* tile_of(const Layout& l, const std::byte* bytes, int tile) {
  return bytes + l.first + static_cast<std::uint64_t>(tile) * l.tile_bytes;
}

void pack_scales(const Layout& l, const Source& from, std::byte* tile, int index) {
  const int size = scale_size(l.coding.scale);
  if (l.coding.tensor || size == 0) return;
  each_row(l, index, [&](int r, int row) {
    for (int g = 0; g < l.groups; ++g) {
      const std::size_t at = static_cast<std::size_t>(row) * l.groups + g;
      std::memcpy(tile + (g * l.tile_rows + r) * size, from.scale + at * size, size);
      if (!l.coding.affine) continue;
      std::uint64_t bit = static_cast<std::uint64_t>(row) * l.coding.bits;
      unsigned both = from.zero[bit / 8 * l.groups + g];
      if (bit % 8 + l.coding.bits > 8)
        both |= static_cast<unsigned>(from.zero[(bit / 8 + 1) * l.groups + g]) << 8;
      tile[l.zeros + g * l.tile_rows + r] =
          static_cast<std::byte>(both >> bit % 8 & ((1u << l.coding.bits) - 1));
    }
  });
}

void unpack_scales(const Layout& l, const std::byte* tile, const Sink& to, int index) {
  const int size = scale_size(l.coding.scale);
  if (l.coding.tensor || size == 0) return;
  each_row(l, index, [&](int r, int row) {
    for (int g = 0; g < l.groups; ++g) {
      const std::size_t at = static_cast<std::size_t>(row) * l.groups + g;
      std::memcpy(to.scale + at * size, tile + (g * l.tile_rows + r) * size, size);
      if (!l.coding.affine) continue;
      const unsigned code = static_cast<unsigned>(tile[l.zeros + g * l.tile_rows + r]);
      const std::uint64_t bit = static_cast<std::uint64_t>(row) * l.coding.bits;
      std::uint8_t* low = to.zero + bit / 8 * l.groups + g;
      *low = static_cast<std::uint8_t>(*low | code << bit % 8);
      if (bit % 8 + l.coding.bits > 8)
        low[l.groups] = static_cast<std::uint8_t>(low[l.groups] | code >> (8 - bit % 8));
    }
  });
}

void pack_codes(const Layout& l, const Source& from, std::byte* tile, int index) {
  each_row(l, index, [&](int r, int row) {
    const std::uint8_t* stream = from.codes + row * row_bytes(l);
    each_code(l, r, [&](int c, const Home& at) {
      auto* lane = reinterpret_cast<std::uint16_t*>(tile + l.codes + at.block) + at.lane;
      set_code(lane, l.coding.bits, at.code, read_bits(stream, c, l.coding.bits));
    });
    if (l.coding.row_levels) {
      const std::size_t size = std::size_t{2} << l.coding.bits;
      std::memcpy(tile + l.levels, reinterpret_cast<const std::byte*>(from.levels) + row * size,
                  size);
    }
  });
}

void unpack_codes(const Layout& l, const std::byte* tile, const Sink& to, int index) {
  each_row(l, index, [&](int r, int row) {
    std::uint8_t* stream = to.codes + row * row_bytes(l);
    std::memset(stream, 0, row_bytes(l));
    each_code(l, r, [&](int c, const Home& at) {
      auto* lane = reinterpret_cast<const std::uint16_t*>(tile + l.codes + at.block) + at.lane;
      write_bits(stream, c, l.coding.bits, code_of(lane, l.coding.bits, at.code));
    });
    if (l.coding.row_levels) {
      const std::size_t size = std::size_t{2} << l.coding.bits;
      std::memcpy(reinterpret_cast<std::byte*>(to.levels) + row * size, tile + l.levels, size);
    }
  });
}

// Calls visit(place in the tile, place in the plane, bytes) for every plain number of a tile.
template <class F>
void each_number(const Layout& l, int index, F&& visit) {
  const std::uint64_t size = number_bytes(l.coding.number);
  each_row(l, index, [&](int r, int row) {
    for (int c = 0; c < l.cols; ++c)
      visit(l.codes + number_at(l, r, c), (static_cast<std::uint64_t>(row) * l.cols + c) * size,
            size);
  });
}

std::uint16_t number_of(const std::byte* plane, std::uint64_t index) {
  std::uint16_t number;
  std::memcpy(&number, plane + 2 * index, sizeof number);
  return number;
}

// The upper bytes that split numbers have most often, by what they amount to, and how many numbers
// have others. The first stands for strays and for the padding of rows: it is the smallest.
struct Uppers {
  std::uint8_t table[kUppers] = {};
  std::uint8_t code[256];  // 255: not in the table
  std::uint64_t strays = 0;
};

Uppers uppers_of(const std::byte* plane, std::uint64_t count) {
  std::uint64_t often[256] = {};
  for (std::uint64_t i = 0; i < count; ++i) ++often[number_of(plane, i) >> 8];
  int order[256];
  for (int i = 0; i < 256; ++i) order[i] = i;
  std::stable_sort(order, order + 256, [&](int a, int b) { return often[a] > often[b]; });
  const auto size = [](int upper) { return std::pair{upper & 0x7f, upper}; };
  std::sort(order, order + kUppers, [&](int a, int b) { return size(a) < size(b); });
  Uppers found;
  std::fill_n(found.code, 256, std::uint8_t{255});
  for (int i = 0; i < kUppers; ++i) {
    found.table[i] = static_cast<std::uint8_t>(order[i]);
    found.code[order[i]] = static_cast<std::uint8_t>(i);
    count -= often[order[i]];
  }
  found.strays = count;
  return found;
}

void pack_split(const Layout& l, const Source& from, std::byte* bytes) {
  const Uppers uppers =
      uppers_of(from.value, static_cast<std::uint64_t>(l.rows) * l.cols);
  std::memcpy(bytes + l.values, uppers.table, kUppers);
  auto* starts = reinterpret_cast<std::uint32_t*>(bytes + l.starts);
  auto* strays = reinterpret_cast<Stray*>(bytes + l.starts + strays_offset(l.tiles));
  std::uint32_t found = 0;
  for (int index = 0; index < l.tiles; ++index) {
    std::byte* tile = tile_of(l, bytes, index);
    starts[index] = found;
    each_row(l, index, [&](int r, int row) {
      for (int c = 0; c < l.cols; ++c) {
        const auto number = number_of(from.value, static_cast<std::uint64_t>(row) * l.cols + c);
        const std::uint8_t code = uppers.code[number >> 8];
        if (code == 255) {
          strays[found++] = {static_cast<std::uint32_t>(c), static_cast<std::uint16_t>(r), number};
          continue;
        }
        const SplitPlace at = split_place(r, c);
        tile[l.codes + at.lower] = static_cast<std::byte>(number & 0xff);
        tile[l.codes + at.code] |= static_cast<std::byte>(code << at.shift);
      }
    });
  }
  starts[l.tiles] = found;
}

void unpack_split(const Layout& l, const std::byte* bytes, const Sink& to) {
  for (int index = 0; index < l.tiles; ++index) {
    const std::byte* tile = tile_of(l, bytes, index);
    const auto put = [&](int row, int c, unsigned number) {
      const auto half = static_cast<std::uint16_t>(number);
      std::memcpy(to.value + 2 * (static_cast<std::uint64_t>(row) * l.cols + c), &half, 2);
    };
    each_row(l, index, [&](int r, int row) {
      for (int c = 0; c < l.cols; ++c) {
        const SplitPlace at = split_place(r, c);
        const unsigned code = static_cast<unsigned>(tile[l.codes + at.code]) >> at.shift & 15;
        put(row, c, static_cast<unsigned>(bytes[l.values + code]) << 8 |
                        static_cast<unsigned>(tile[l.codes + at.lower]));
      }
    });
    const Strays strays = strays_of(l, bytes, index);
    for (const Stray* each = strays.begin; each != strays.end; ++each)
      put(index * l.tile_rows + each->row, static_cast<int>(each->input), each->number);
  }
}

// Whether the strays lie in their tiles.
bool strays_fit(const Layout& l, const std::byte* bytes) {
  if (!l.split) return true;
  const auto* starts = reinterpret_cast<const std::uint32_t*>(bytes + l.starts);
  if (starts[0] != 0 || starts[l.tiles] != l.strays) return false;
  if (!std::is_sorted(starts, starts + l.tiles + 1)) return false;
  for (int tile = 0; tile < l.tiles; ++tile) {
    const Strays strays = strays_of(l, bytes, tile);
    const int rows = std::min(l.tile_rows, l.rows - tile * l.tile_rows);
    const bool inside = std::all_of(strays.begin, strays.end, [&](const Stray& each) {
      return each.input < static_cast<std::uint32_t>(l.cols) && each.row < rows;
    });
    if (!inside) return false;
  }
  return true;
}

// Whether every level (NaN apart) is exactly a bf16 number.
bool exact(const float* values, int count) {
  return std::all_of(values, values + count, [](float value) {
    return std::isnan(value) || bf16_to_f32(f32_to_bf16(value)) == value;
  });
}

// Rows of their own: groups of whole blocks where that costs nothing, else of whole vectors.
void by_rows(Layout& l) {
  const int block = kLanes * block_codes(l.coding.bits), group = l.coding.group;
  const bool whole = group <= 0 || group >= l.cols || group % block == 0;
  l.unit = whole ? block : kLanes;
  l.segment = std::max(256, whole ? block : 0);
}

void group_up(Layout& l) {
  const Coding& f = l.coding;
  l.group = f.group > 0 && f.group < l.cols ? f.group : l.cols;
  l.groups = ceiling(l.cols, l.group);
  l.last = padded_to(l.cols - (l.groups - 1) * l.group, l.unit);
  l.slot = l.groups == 1 ? l.last : padded_to(l.group, l.unit);
  if (l.groups == 1) l.group = l.slot;  // positions are input numbers
  l.padded = (l.groups - 1) * l.slot + l.last;
  l.width = padded_to(l.padded, 64);
  if (l.form == Form::rowwise) l.width = padded_to(l.padded, kLanes * block_codes(l.coding.bits));
  l.segments = (l.groups - 1) * ceiling(l.slot, l.segment) + ceiling(l.last, l.segment);
}

}  // namespace

std::string refusal(const Coding& f, int rows, int cols) {
  if (rows < 1 || cols < 1) return "the matrix is empty";
  if (rows > kLongest || cols > kLongest) return "the matrix is too large";
  if (f.number == Number::code && (f.bits < 2 || f.bits > 8)) return "codes of 2 to 8 bits";
  if (f.row_levels && (f.affine || f.tensor || f.number != Number::code))
    return "tables of rows go with scales of rows";
  return "";
}

Layout plan(const Coding& coding, int rows, int cols, int terms,
            std::optional<std::uint64_t> strays) {
  Layout l;
  l.coding = coding;
  l.terms = static_cast<std::uint8_t>(terms);
  l.split = strays.has_value();
  l.strays = strays.value_or(0);
  l.form = coding.row_levels ? Form::rowwise : Form::interleaved;
  l.rows = rows;
  l.cols = cols;
  const bool coded = coding.number == Number::code, by_row = coding.row_levels;
  l.unit = coded ? 2 * block_codes(coding.bits) : kPairs;
  l.segment = 64;
  if (by_row) by_rows(l);
  group_up(l);
  l.tile_rows = by_row ? 1 : 16;
  l.tiles = ceiling(rows, l.tile_rows);
  const std::uint64_t count = static_cast<std::uint64_t>(l.groups) * l.tile_rows;
  l.zeros = coding.tensor ? 0 : count * scale_size(coding.scale);
  l.levels = l.zeros + (coding.affine && !coding.tensor ? count : 0);
  l.codes = lines(l.levels + (by_row ? std::uint64_t{2} << coding.bits : 0));
  std::uint64_t size;
  if (coded) {
    const int vectors = by_row ? l.padded / kLanes : l.padded / 2;
    size = static_cast<std::uint64_t>(ceiling(vectors, block_codes(coding.bits))) *
           block_words(coding.bits) * kVectorBytes;
  } else if (l.split) {
    size = static_cast<std::uint64_t>(l.padded / kPairs) * kSplitBytes;
  } else {
    size = static_cast<std::uint64_t>(l.padded) * 16 * number_bytes(coding.number);
  }
  l.tile_bytes = lines(l.codes + size);
  l.values = lines(sizeof(Layout));
  const std::uint64_t table = coded && !by_row ? std::uint64_t{4} << coding.bits : 0;
  l.first = lines(l.values + (l.split ? kUppers : table));
  l.starts = l.first + l.tile_bytes * l.tiles;
  l.bytes = l.starts;
  if (l.split) l.bytes += lines(strays_offset(l.tiles) + l.strays * sizeof(Stray));
  return l;
}

Layout planned(const Coding& f, const Source& from, int rows, int cols, bool split) {
  if (split && f.number == Number::bf16) {
    const std::uint64_t count = static_cast<std::uint64_t>(rows) * cols;
    const std::uint64_t strays = uppers_of(from.value, count).strays;
    if (strays <= std::min<std::uint64_t>(count / kRare, UINT32_MAX))
      return plan(f, rows, cols, 1, strays);
  }
  const bool single = f.number == Number::code ? from.values && exact(from.values, 1 << f.bits)
                                               : f.number == Number::bf16;
  Layout l = plan(f, rows, cols, single ? 1 : 2);
  if (from.global) l.global = *from.global;
  l.has_base = from.base != nullptr;
  if (l.has_base) l.base = *from.base;
  if (f.tensor) {
    std::memcpy(&l.tensor_raw, from.scale, scale_size(f.scale));
    l.tensor_scale = wide(f.scale, from.scale, l.global);
    if (f.affine) l.tensor_zero = static_cast<float>(read_bits(from.zero, 0, f.bits));
  }
  return l;
}

void pack(const Layout& l, const Source& from, std::byte* bytes) {
  std::memcpy(bytes, &l, sizeof l);
  if (from.values) std::memcpy(bytes + l.values, from.values, std::size_t{4} << l.coding.bits);
  if (l.split) return pack_split(l, from, bytes);
  for (int t = 0; t < l.tiles; ++t) {
    std::byte* tile = tile_of(l, bytes, t);
    if (l.coding.number == Number::code) {
      pack_scales(l, from, tile, t);
      pack_codes(l, from, tile, t);
    } else {
      each_number(l, t, [&](std::uint64_t at, std::uint64_t plane, std::uint64_t size) {
        std::memcpy(tile + at, from.value + plane, size);
      });
    }
  }
}

void unpack(const std::byte* bytes, const Sink& to) {
  Layout l;
  std::memcpy(&l, bytes, sizeof l);
  const Coding& f = l.coding;
  if (l.split) return unpack_split(l, bytes, to);
  if (f.tensor) {
    std::memcpy(to.scale, &l.tensor_raw, scale_size(f.scale));
    if (f.affine) to.zero[0] = static_cast<std::uint8_t>(l.tensor_zero);
  } else if (f.affine) {
    std::memset(to.zero, 0, static_cast<std::size_t>((l.rows * f.bits + 7) / 8) * l.groups);
  }
  for (int t = 0; t < l.tiles; ++t) {
    const std::byte* tile = tile_of(l, bytes, t);
    if (f.number == Number::code) {
      unpack_scales(l, tile, to, t);
      unpack_codes(l, tile, to, t);
    } else {
      each_number(l, t, [&](std::uint64_t at, std::uint64_t plane, std::uint64_t size) {
        std::memcpy(to.value + plane, tile + at, size);
      });
    }
  }
}

namespace {

// Whether levels can have so many terms: f16 and float32 always have two.
bool possible_terms(const Coding& f, int terms) {
  if (f.number == Number::bf16) return terms == 1;
  if (f.number != Number::code || f.row_levels) return terms == 2;
  return terms == 1 || terms == 2;
}

}  // namespace

const Layout* header(const std::byte* bytes, std::size_t size) {
  if (size < sizeof(Layout)) return nullptr;
  const auto* l = reinterpret_cast<const Layout*>(bytes);
  if (l->magic != kMagic || l->version != kVersion || l->bytes > size) return nullptr;
  if (l->coding.number > Number::f32 || l->coding.scale > Scale::e4m3) return nullptr;
  if (!refusal(l->coding, l->rows, l->cols).empty()) return nullptr;
  if (!possible_terms(l->coding, l->terms)) return nullptr;
  if (l->split && (l->coding.number != Number::bf16 || l->strays > UINT32_MAX)) return nullptr;
  const Layout expected = plan(l->coding, l->rows, l->cols, l->terms,
                               l->split ? std::optional(l->strays) : std::nullopt);
  const bool same =
      expected.bytes == l->bytes && expected.first == l->first &&
      expected.tile_bytes == l->tile_bytes && expected.codes == l->codes &&
      expected.padded == l->padded && expected.segments == l->segments &&
      expected.tiles == l->tiles && expected.slot == l->slot && expected.last == l->last &&
      expected.groups == l->groups && expected.zeros == l->zeros && expected.levels == l->levels &&
      expected.values == l->values && expected.width == l->width && expected.unit == l->unit &&
      expected.segment == l->segment && expected.tile_rows == l->tile_rows &&
      expected.group == l->group && expected.form == l->form && expected.starts == l->starts;
  return same && strays_fit(*l, bytes) ? l : nullptr;
}

}  // namespace whet::table
