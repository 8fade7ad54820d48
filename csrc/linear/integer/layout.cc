#include "linear/integer/canon.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace whet::integer {
namespace {

constexpr uint32_t kKernel = 1;
constexpr int kLongest = 32768;  // inputs of a step: sums of products stay below 2^31
constexpr int kLongestHalves = 256;  // the same where inputs are of 16 bits
constexpr int kWidest = 1 << 20;
constexpr int kTable = 2;  // the part of a layout that says what codes stand for

// Numbers of 4 bits, 0, ½, 1, 1½, 2, 3, 4 and 6: halves of integers.
bool is_fp4(const Format& format) {
  return format.element == Element::minifloat && format.bits == 4 && format.exponent == 2;
}

// Whether codes stand for levels that are integers, times a unit.
bool maps(const Format& format) { return format.element == Element::mapped || is_fp4(format); }

// How the inputs of a row are cut.
struct Cut {
  int step, steps;
  int group;   // steps of a group
  int groups;  // of a row
};

int divisor_step(int group, Mode mode) {
  for (int step = 64; step >= 16; step -= 4) {
    if (group % step == 0) return step;
  }
  if (mode != Mode::int16) return group;
  int step = kLongestHalves;
  while (group % step != 0) step -= 4;
  return step;
}

Cut cut_of(const Format& format, int cols, Mode mode) {
  const int padded = static_cast<int>(round_up(static_cast<std::size_t>(cols), kBlock));
  Cut cut{};
  if (format.group > 0) {
    cut.step = mode == Mode::token8         ? format.group
               : format.group % kBlock == 0 ? kBlock
                                            : divisor_step(format.group, mode);
    cut.steps = (cols + cut.step - 1) / cut.step;
    cut.group = format.group / cut.step;
    cut.groups = (cols + format.group - 1) / format.group;
    return cut;
  }
  const int parts = (padded + kLongest - 1) / kLongest;
  cut.step = mode != Mode::token8
                 ? kBlock
                 : static_cast<int>(round_up((padded + parts - 1) / parts, kBlock));
  cut.steps = (cols + cut.step - 1) / cut.step;
  cut.group = cut.steps;
  cut.groups = 1;
  return cut;
}

int step_bytes(int bits, int step) {
  const int rest = step % kBlock / 4;
  return step / kBlock * block_bytes(bits, kQuads) + (rest ? block_bytes(bits, rest) : 0);
}

Weight geometry(const Format& format, int rows, int cols, Mode mode) {
  const Cut cut = cut_of(format, cols, mode);
  Weight weight{};
  weight.rows = rows;
  weight.cols = cols;
  weight.bits = format.bits;
  weight.coding = format.bits + (format.sparse ? kSparse : 0) + (maps(format) ? kMapped : 0);
  weight.unit = 1;
  weight.affine = format.affine;
  weight.minimum = format.minimum;
  weight.scale = format.scale;
  weight.scale_bytes = scale_bytes(format.scale);
  weight.head = kRows * (weight.scale_bytes * (format.minimum ? 2 : 1) + (format.affine ? 1 : 0));
  weight.step = cut.step;
  weight.steps = cut.steps;
  weight.group = cut.group;
  if (format.sparse) return weight;
  weight.step_bytes = step_bytes(format.bits, cut.step);
  weight.tile_bytes = round_up(static_cast<std::size_t>(cut.groups) * weight.head +
                                   static_cast<std::size_t>(cut.steps) * weight.step_bytes,
                               kLine);
  return weight;
}

// All codes of a row, one a byte.
void spread(const uint8_t* bytes, std::size_t size, int bits, int count, uint8_t* codes) {
  const unsigned mask = (1u << bits) - 1;
  uint64_t word = 0;
  int held = 0;
  std::size_t at = 0;
  for (int i = 0; i < count; ++i) {
    while (held < bits && at < size) {
      word |= static_cast<uint64_t>(bytes[at++]) << held;
      held += 8;
    }
    codes[i] = static_cast<uint8_t>(word & mask);
    word >>= bits;
    held -= bits;
  }
}

// The codes of a tile, [row][padded column].
struct Square {
  std::vector<uint8_t> codes;
  std::size_t width;
  explicit Square(const Weight& weight)
      : width(static_cast<std::size_t>(weight.steps) * weight.step) {
    clear();
  }
  void clear() { codes.assign(kRows * width, 0); }
  uint8_t* row(int r) { return codes.data() + static_cast<std::size_t>(r) * width; }
};

// Four codes of a row as a word, the plane's bits of each in its byte.
uint32_t quad_bits(const uint8_t* codes, int shift, int width) {
  uint32_t word;
  std::memcpy(&word, codes, 4);
  return word >> shift & 0x01010101u * ((1u << width) - 1);
}

void write_block(const Square& square, std::size_t column, int bits, int quads, uint8_t* out) {
  const Widths widths = widths_of(bits);
  for (int i = 0, shift = 0; i < 4 && widths.width[i]; shift += widths.width[i++]) {
    const int width = widths.width[i], packed = 8 / width;
    for (int quad = 0; quad < quads; ++quad) {
      uint8_t* vector = out + quad / packed * kVector;
      for (int r = 0; r < kRows; ++r) {
        const uint8_t* codes = square.codes.data() + r * square.width + column + quad * 4;
        uint32_t word;
        std::memcpy(&word, vector + r * 4, 4);
        word |= quad_bits(codes, shift, width) << (quad % packed * width);
        std::memcpy(vector + r * 4, &word, 4);
      }
    }
    out += (quads + packed - 1) / packed * kVector;
  }
}

void read_block(const uint8_t* in, int bits, int quads, Square* square, std::size_t column) {
  const Widths widths = widths_of(bits);
  for (int i = 0, shift = 0; i < 4 && widths.width[i]; shift += widths.width[i++]) {
    const int width = widths.width[i], packed = 8 / width;
    for (int quad = 0; quad < quads; ++quad) {
      const uint8_t* vector = in + quad / packed * kVector;
      for (int byte = 0; byte < kVector; ++byte) {
        const unsigned part = vector[byte] >> (quad % packed * width) & ((1u << width) - 1);
        square->row(byte / 4)[column + quad * 4 + byte % 4] |= static_cast<uint8_t>(part << shift);
      }
    }
    in += (quads + packed - 1) / packed * kVector;
  }
}

void write_tile(const Weight& weight, const Canon& canon, const Source& from, int tile,
                Square* square, uint8_t* out) {
  square->clear();
  for (int r = 0; r < kRows && tile * kRows + r < weight.rows; ++r) {
    const std::size_t row = static_cast<std::size_t>(tile) * kRows + r;
    spread(from.codes + row * canon.row_bytes, canon.row_bytes, canon.bits, weight.cols,
           square->row(r));
  }
  walk(
      weight, out,
      [&](uint8_t* head, int group) { write_head(weight, canon, from, tile, group, head); },
      [&](uint8_t* block, int column, int quads) {
        write_block(*square, column, weight.bits, quads, block);
        return block + block_bytes(weight.bits, quads);
      });
}

void read_tile(const Weight& weight, const Canon& canon, int tile, Square* square,
               const Target& to) {
  square->clear();
  walk(
      weight, weight.tile(tile),
      [&](const uint8_t* head, int group) { read_head(weight, canon, tile, group, head, to); },
      [&](const uint8_t* block, int column, int quads) {
        read_block(block, weight.bits, quads, square, column);
        return block + block_bytes(weight.bits, quads);
      });
  for (int r = 0; r < kRows && tile * kRows + r < weight.rows; ++r) {
    uint8_t* row = to.codes + (static_cast<std::size_t>(tile) * kRows + r) * canon.row_bytes;
    for (int c = 0; c < weight.cols; ++c) put_code(row, 1, c, canon.bits, square->row(r)[c]);
  }
}

uint8_t* raw(std::vector<std::byte>& bytes, std::size_t size) {
  bytes.assign(size, std::byte{0});
  return reinterpret_cast<uint8_t*>(bytes.data());
}

// What the codes of a weight stand for.
LevelTable table_of(const Planes& weight) {
  LevelTable table{};
  std::fill(table.levels, table.levels + kLevels, uint8_t{128});
  const std::size_t count = std::size_t{1} << weight.format.bits;
  table.unit = is_fp4(weight.format) ? 0.5f : 1.0f;
  const bool stored = weight.format.element == Element::mapped;
  const Bytes given = stored ? plane(weight, "levels", count)
                             : plane(weight, "table", count * sizeof(float));
  for (std::size_t i = 0; i < count; ++i) {
    float value = static_cast<float>(static_cast<int8_t>(given[stored ? i : 0]));
    if (!stored) std::memcpy(&value, given.data() + i * sizeof value, sizeof value);
    value /= table.unit;
    if (!(value >= -128 && value <= 127) || value != std::trunc(value)) {
      throw LayoutError("a level of the table is no integer of int8");
    }
    table.levels[i] = static_cast<uint8_t>(static_cast<int>(value) + 128);
  }
  return table;
}

// `table`: what codes stand for, where they are mapped.
Aligned pack_all(const Weight& weight, const Canon& canon, const Source& from,
                 const LevelTable* table, MatrixView view) {
  view.offset[0] = kHeader;
  view.length[0] = weight.tile_bytes * weight.tile_count();
  view.size = kHeader + view.length[0];
  if (table != nullptr) {
    view.offset[kTable] = view.size;
    view.length[kTable] = kLine;
    view.size += kLine;
  }
  Aligned layout(view.size);
  std::memcpy(layout.data(), &view, sizeof view);
  if (table != nullptr) std::memcpy(layout.data() + view.offset[kTable], table, sizeof *table);
  auto* tiles = reinterpret_cast<uint8_t*>(layout.data() + kHeader);
  Square square(weight);
  for (int tile = 0; tile < weight.tile_count(); ++tile) {
    write_tile(weight, canon, from, tile, &square, tiles + tile * weight.tile_bytes);
  }
  return layout;
}

}  // namespace

std::string refusal(const Planes& weight, Tier tier, Mode mode) {
  const Format& format = weight.format;
  if (format.element != Element::integer && !maps(format)) return "the codes are no integers";
  if (mode == Mode::bf16) return "activations are asked for as bf16";
  if (maps(format)) {
    if (format.bits > 4) return "of tables of integers those of 2 to 4 bits are taken";
    if (format.sparse || format.affine || format.minimum) {
      return "codes for a table are neither sparse nor shifted";
    }
  }
  if (format.bits < 2 || format.bits > 8) return "codes of 2 to 8 bits are taken";
  if (format.scale == Scale::none || format.scale == Scale::e4m3) {
    return "scales of bf16, f16, f32 and e8m0 are taken";
  }
  if (format.group < kTensor || format.group > kLongest) return "no group is that long";
  if (format.group > 0 && format.group % 4 != 0) return "groups of a multiple of 4 are taken";
  if (weight.cols > kWidest) return "rows of at most 1048576 are taken";
  if (mode != Mode::token8 && weight.input_scale != 0) return "a fixed scale goes with mode token8";
  if (format.minimum && (format.affine || format.scale == Scale::e8m0)) {
    return "a minimum goes without a zero point, and with scales of bf16, f16 and f32";
  }
  if (format.sparse) {
    if (format.bits != 4 && format.bits != 8) return "of sparse codes 4 and 8 bits are taken";
    if (format.affine || format.minimum) return "sparse codes have no zero points";
    if (tier != Tier::generic && !has_avx512(tier)) {
      return std::string("sparse codes are not expanded by ") + tier_name(tier);
    }
  }
  return "";
}

Aligned pack(const Planes& planes, Tier tier, Mode mode) {
  const Weight weight = geometry(planes.format, planes.rows, planes.cols, mode);
  const Canon canon(planes.format, planes.rows, planes.cols);
  MatrixView view = header_for(planes, kKernel, tier, mode);
  view.step = weight.step;
  Source from{};
  from.scale = raw(plane(planes, "scale", canon.scale_count() * weight.scale_bytes));
  if (weight.affine) from.zero = raw(plane(planes, "zero", canon.zero_size()));
  if (weight.minimum) {
    from.minimum = raw(plane(planes, "minimum", canon.scale_count() * weight.scale_bytes));
  }
  if (planes.format.sparse) return pack_kept(weight, canon, from, planes, view);
  from.codes = raw(plane(planes, "codes", canon.codes_size()));
  if (!maps(planes.format)) return pack_all(weight, canon, from, nullptr, view);
  const LevelTable table = table_of(planes);
  return pack_all(weight, canon, from, &table, view);
}

Weight weight_of(Bytes layout) {
  const MatrixView& view = view_of(layout);
  const Stored stored = described(view);
  const Planes planes = {stored.format, stored.rows, stored.cols, stored.input_scale, {}};
  const std::string reason = refusal(planes, Tier::generic, view.mode);
  if (!reason.empty()) throw LayoutError("the layout's header is damaged: " + reason);
  Weight weight = geometry(stored.format, stored.rows, stored.cols, view.mode);
  weight.tiles = raw(layout) + view.offset[0];
  if (stored.format.sparse) {
    find_tiles(layout, view, &weight);
  } else if (view.length[0] != weight.tile_bytes * weight.tile_count()) {
    throw LayoutError("the layout's header is damaged: its sizes do not agree");
  }
  if (maps(stored.format)) {
    if (view.length[kTable] != kLine) {
      throw LayoutError("the layout's header is damaged: it has no table of levels");
    }
    weight.levels = raw(layout) + view.offset[kTable] + offsetof(LevelTable, levels);
    std::memcpy(&weight.unit, raw(layout) + view.offset[kTable] + offsetof(LevelTable, unit),
                sizeof weight.unit);
  }
  if (view.step != weight.step) {
    throw LayoutError("the layout's header is damaged: its steps do not agree");
  }
  return weight;
}

Stored unpack(Bytes layout) {
  const Weight weight = weight_of(layout);
  Stored stored = described(view_of(layout));
  const Canon canon(stored.format, stored.rows, stored.cols);
  Target to{};
  to.scale = raw(stored.planes["scale"], canon.scale_count() * weight.scale_bytes);
  if (weight.affine) to.zero = raw(stored.planes["zero"], canon.zero_size());
  if (weight.minimum) {
    to.minimum = raw(stored.planes["minimum"], canon.scale_count() * weight.scale_bytes);
  }
  if (stored.format.sparse) {
    to.mask = raw(stored.planes["mask"], canon.mask_size());
    const std::vector<std::size_t> rows = read_masks(weight, canon, to);
    to.codes = raw(stored.planes["codes"], rows.back());
    for (int tile = 0; tile < weight.tile_count(); ++tile) {
      read_kept(weight, canon, rows, tile, to);
    }
    return stored;
  }
  if (stored.format.element == Element::mapped) {
    std::vector<std::byte>& levels = stored.planes["levels"];
    for (int i = 0; i < 1 << stored.format.bits; ++i) {
      levels.push_back(static_cast<std::byte>(weight.levels[i] ^ 128));
    }
  }
  to.codes = raw(stored.planes["codes"], canon.codes_size());
  Square square(weight);
  for (int tile = 0; tile < weight.tile_count(); ++tile) {
    read_tile(weight, canon, tile, &square, to);
  }
  return stored;
}

}  // namespace whet::integer
