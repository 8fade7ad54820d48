#include "linear/integer/layout.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace whet::integer {
namespace {

constexpr uint32_t kKernel = 1;
constexpr int kLongest = 32768;  // inputs of a step: sums of products stay below 2^31
constexpr int kWidest = 1 << 20;

// How the inputs of a row are cut.
struct Cut {
  int step, steps;
  int group;   // steps of a group
  int groups;  // of a row
};

int divisor_step(int group) {
  for (int step = 64; step >= 16; step -= 4) {
    if (group % step == 0) return step;
  }
  return group;
}

Cut cut_of(const Format& format, int cols, Mode mode) {
  const int padded = static_cast<int>(round_up(static_cast<std::size_t>(cols), kBlock));
  Cut cut{};
  if (format.group > 0) {
    cut.step = mode == Mode::token8         ? format.group
               : format.group % kBlock == 0 ? kBlock
                                            : divisor_step(format.group);
    cut.steps = (cols + cut.step - 1) / cut.step;
    cut.group = format.group / cut.step;
    cut.groups = (cols + format.group - 1) / format.group;
    return cut;
  }
  const int parts = (padded + kLongest - 1) / kLongest;
  cut.step = mode == Mode::int8 ? kBlock
                                : static_cast<int>(round_up((padded + parts - 1) / parts, kBlock));
  cut.steps = (cols + cut.step - 1) / cut.step;
  cut.group = cut.steps;
  cut.groups = 1;
  return cut;
}

int step_bytes(int coding, int step) {
  const int rest = step % kBlock / 4;
  return step / kBlock * block_bytes(coding, kQuads) + (rest ? block_bytes(coding, rest) : 0);
}

Weight geometry(const Format& format, int rows, int cols, Mode mode) {
  const Cut cut = cut_of(format, cols, mode);
  Weight weight{};
  weight.rows = rows;
  weight.cols = cols;
  weight.bits = format.bits;
  weight.coding = format.bits + (format.of != 0 ? kTwoOfFour : 0);
  weight.affine = format.affine;
  weight.scale = format.scale;
  weight.scale_bytes = scale_bytes(format.scale);
  weight.head = kRows * (weight.scale_bytes + (format.affine ? 1 : 0));
  weight.step = cut.step;
  weight.steps = cut.steps;
  weight.group = cut.group;
  weight.step_bytes = step_bytes(weight.coding, cut.step);
  weight.tile_bytes = round_up(static_cast<std::size_t>(cut.groups) * weight.head +
                                   static_cast<std::size_t>(cut.steps) * weight.step_bytes,
                               kLine);
  return weight;
}

// The canonical planes of a weight, by row and group.
struct Canon {
  int bits, groups, rows;
  bool tensor;
  bool sparse;
  std::size_t row_bytes, mask_bytes, zero_stride;

  Canon(const Format& format, int rows_, int cols) : bits(format.bits), rows(rows_) {
    tensor = format.group == kTensor;
    groups = format.group > 0 ? (cols + format.group - 1) / format.group : 1;
    sparse = format.of != 0;
    row_bytes = (static_cast<std::size_t>(sparse ? cols / 2 : cols) * bits + 7) / 8;
    mask_bytes = sparse ? (static_cast<std::size_t>(cols) + 7) / 8 : 0;
    zero_stride = static_cast<std::size_t>(groups);
  }
  std::size_t codes_size() const { return row_bytes * rows; }
  std::size_t mask_size() const { return mask_bytes * rows; }
  std::size_t scale_count() const {
    return tensor ? 1 : static_cast<std::size_t>(rows) * static_cast<std::size_t>(groups);
  }
  std::size_t zero_size() const {
    return tensor ? 1 : (static_cast<std::size_t>(rows) * bits + 7) / 8 * zero_stride;
  }
};

// Code i of a little-endian bit stream whose bytes lie `stride` apart.
unsigned code_at(const uint8_t* bytes, std::size_t size, std::size_t stride, std::size_t i,
                 int bits) {
  const std::size_t bit = i * bits, at = bit / 8;
  unsigned word = bytes[at * stride];
  if (at + 1 < size) word |= static_cast<unsigned>(bytes[(at + 1) * stride]) << 8;
  return word >> (bit % 8) & ((1u << bits) - 1);
}

void put_code(uint8_t* bytes, std::size_t stride, std::size_t i, int bits, unsigned code) {
  const std::size_t bit = i * bits, at = bit / 8;
  const unsigned word = code << (bit % 8);
  bytes[at * stride] |= static_cast<uint8_t>(word);
  if (word >> 8) bytes[(at + 1) * stride] |= static_cast<uint8_t>(word >> 8);
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
  std::vector<uint8_t> kept;  // whether a code is stored, where not all are
  std::size_t width;
  explicit Square(const Weight& weight)
      : width(static_cast<std::size_t>(weight.steps) * weight.step) {
    clear(weight.coding > kTwoOfFour);
  }
  // Zeros; of what lies beyond the weight the first two of each four are stored.
  void clear(bool sparse) {
    codes.assign(kRows * width, 0);
    kept.assign(sparse ? kRows * width : 0, 0);
    for (std::size_t i = 0; i < kept.size(); ++i) kept[i] = i % 4 < 2;
  }
  uint8_t* row(int r) { return codes.data() + static_cast<std::size_t>(r) * width; }
  uint8_t* kept_row(int r) { return kept.data() + static_cast<std::size_t>(r) * width; }
};

// Puts a row's stored codes where its mask says, with the mask.
void place(const uint8_t* codes, const uint8_t* mask, int cols, uint8_t* row, uint8_t* kept) {
  int next = 0;
  for (int c = 0; c < cols; c += 4) {
    const unsigned four = mask[c / 8] >> (c % 8) & 15;
    if (std::popcount(four) != 2) throw LayoutError("a mask does not keep two of each four");
    for (int i = 0; i < 4; ++i) {
      kept[c + i] = four >> i & 1;
      row[c + i] = kept[c + i] ? codes[next++] : 0;
    }
  }
}

void write_kept(const Square& square, std::size_t column, int coding, int quads, uint8_t* out) {
  const int width = width_of(coding), bytes = kept_bytes(coding);
  for (int quad = 0; quad < quads; ++quad) {
    uint8_t *codes = out + quad * bytes, *mask = out + quads * bytes + quad * 8;
    int next = 0;
    for (int i = 0; i < kVector; ++i) {
      const std::size_t at = i / 4 * square.width + column + quad * 4 + i % 4;
      if (!square.kept[at]) continue;
      mask[i / 8] |= static_cast<uint8_t>(1u << (i % 8));
      put_code(codes, 1, next++, width, square.codes[at]);
    }
  }
}

void read_kept(const uint8_t* in, int coding, int quads, Square* square, std::size_t column) {
  const int width = width_of(coding), bytes = kept_bytes(coding);
  for (int quad = 0; quad < quads; ++quad) {
    const uint8_t *codes = in + quad * bytes, *mask = in + quads * bytes + quad * 8;
    int next = 0;
    for (int i = 0; i < kVector; ++i) {
      const std::size_t at = i / 4 * square->width + column + quad * 4 + i % 4;
      square->kept[at] = mask[i / 8] >> (i % 8) & 1;
      if (!square->kept[at] || next == 2 * kRows) continue;
      square->codes[at] = static_cast<uint8_t>(code_at(codes, bytes, 1, next++, width));
    }
  }
}

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

// Calls f(bytes of the block, its first column, its quads) along a tile's step.
template <class Byte, class F>
void each_block(const Weight& weight, int step, Byte* at, F&& f) {
  const std::size_t column = static_cast<std::size_t>(step) * weight.step;
  for (int done = 0; done < weight.step; done += kBlock) {
    const int quads = std::min(kBlock, weight.step - done) / 4;
    f(at, column + done, quads);
    at += block_bytes(weight.coding, quads);
  }
}

// Where a group's head begins in a tile.
std::size_t group_at(const Weight& weight, int group) {
  return static_cast<std::size_t>(group) *
         (weight.head + static_cast<std::size_t>(weight.group) * weight.step_bytes);
}

const uint8_t* raw(Bytes bytes) { return reinterpret_cast<const uint8_t*>(bytes.data()); }

struct Source {
  const uint8_t *codes, *scale, *zero, *mask;
};

void write_heads(const Weight& weight, const Canon& canon, const Source& from, int tile,
                 uint8_t* out) {
  const int rows = std::min(kRows, weight.rows - tile * kRows);
  const std::size_t zero_rows = canon.tensor ? 1 : canon.zero_size() / canon.zero_stride;
  for (int group = 0; group < canon.groups; ++group) {
    uint8_t* head = out + group_at(weight, group);
    for (int r = 0; r < rows; ++r) {
      const std::size_t row = canon.tensor ? 0 : static_cast<std::size_t>(tile) * kRows + r;
      const std::size_t at = row * canon.groups + group;
      std::memcpy(head + r * weight.scale_bytes, from.scale + at * weight.scale_bytes,
                  weight.scale_bytes);
      if (weight.affine) {
        head[kRows * weight.scale_bytes + r] = static_cast<uint8_t>(
            code_at(from.zero + group, zero_rows, canon.zero_stride, row, canon.bits));
      }
    }
  }
}

void write_tile(const Weight& weight, const Canon& canon, const Source& from, int tile,
                Square* square, uint8_t* out) {
  square->clear(canon.sparse);
  std::vector<uint8_t> kept(canon.sparse ? weight.cols / 2 : 0);
  for (int r = 0; r < kRows && tile * kRows + r < weight.rows; ++r) {
    const std::size_t row = static_cast<std::size_t>(tile) * kRows + r;
    const uint8_t* codes = from.codes + row * canon.row_bytes;
    if (canon.sparse) {
      spread(codes, canon.row_bytes, canon.bits, weight.cols / 2, kept.data());
      place(kept.data(), from.mask + row * canon.mask_bytes, weight.cols, square->row(r),
            square->kept_row(r));
    } else {
      spread(codes, canon.row_bytes, canon.bits, weight.cols, square->row(r));
    }
  }
  write_heads(weight, canon, from, tile, out);
  for (int step = 0; step < weight.steps; ++step) {
    uint8_t* at = out + group_at(weight, step / weight.group) + weight.head +
                  static_cast<std::size_t>(step % weight.group) * weight.step_bytes;
    each_block(weight, step, at, [&](uint8_t* block, std::size_t column, int quads) {
      if (canon.sparse) {
        write_kept(*square, column, weight.coding, quads, block);
      } else {
        write_block(*square, column, weight.bits, quads, block);
      }
    });
  }
}

struct Target {
  uint8_t *codes, *scale, *zero, *mask;
};

void read_heads(const Weight& weight, const Canon& canon, int tile, const uint8_t* in,
                const Target& to) {
  const int rows = canon.tensor ? (tile == 0 ? 1 : 0) : std::min(kRows, weight.rows - tile * kRows);
  for (int group = 0; group < canon.groups; ++group) {
    const uint8_t* head = in + group_at(weight, group);
    for (int r = 0; r < rows; ++r) {
      const std::size_t row = static_cast<std::size_t>(tile) * kRows + r;
      std::memcpy(to.scale + (row * canon.groups + group) * weight.scale_bytes,
                  head + r * weight.scale_bytes, weight.scale_bytes);
      if (weight.affine) {
        put_code(to.zero + group, canon.zero_stride, row, canon.bits,
                 head[kRows * weight.scale_bytes + r]);
      }
    }
  }
}

void read_tile(const Weight& weight, const Canon& canon, int tile, const uint8_t* in,
               Square* square, const Target& to) {
  square->clear(canon.sparse);
  for (int step = 0; step < weight.steps; ++step) {
    const uint8_t* at = in + group_at(weight, step / weight.group) + weight.head +
                        static_cast<std::size_t>(step % weight.group) * weight.step_bytes;
    each_block(weight, step, at, [&](const uint8_t* block, std::size_t column, int quads) {
      if (canon.sparse) {
        read_kept(block, weight.coding, quads, square, column);
      } else {
        read_block(block, weight.bits, quads, square, column);
      }
    });
  }
  read_heads(weight, canon, tile, in, to);
  for (int r = 0; r < kRows && tile * kRows + r < weight.rows; ++r) {
    uint8_t* row = to.codes + (static_cast<std::size_t>(tile) * kRows + r) * canon.row_bytes;
    if (!canon.sparse) {
      for (int c = 0; c < weight.cols; ++c) put_code(row, 1, c, canon.bits, square->row(r)[c]);
      continue;
    }
    uint8_t* mask = to.mask + (static_cast<std::size_t>(tile) * kRows + r) * canon.mask_bytes;
    for (int c = 0, next = 0; c < weight.cols; ++c) {
      if (!square->kept_row(r)[c]) continue;
      mask[c / 8] |= static_cast<uint8_t>(1u << (c % 8));
      if (next < weight.cols / 2) put_code(row, 1, next++, canon.bits, square->row(r)[c]);
    }
  }
}

}  // namespace

std::string refusal(const Planes& weight, Tier tier, Mode mode) {
  const Format& format = weight.format;
  if (format.element != Element::integer) return "the codes are no integers";
  if (mode == Mode::bf16) return "activations are asked for as bf16";
  if (format.bits < 2 || format.bits > 8) return "codes of 2 to 8 bits are taken";
  if (format.scale == Scale::none || format.scale == Scale::e4m3) {
    return "scales of bf16, f16, f32 and e8m0 are taken";
  }
  if (format.group < kTensor || format.group > kLongest) return "no group is that long";
  if (format.group > 0 && format.group % 4 != 0) return "groups of a multiple of 4 are taken";
  if (weight.cols > kWidest) return "rows of at most 1048576 are taken";
  if (mode == Mode::int8 && weight.input_scale != 0) return "a fixed scale goes with mode token8";
  if (format.of != 0) {
    if (format.kept != 2 || format.of != 4) return "of sparse weights 2:4 is taken";
    if (format.bits != 4 && format.bits != 8) return "of sparse codes 4 and 8 bits are taken";
    if (format.affine) return "sparse codes have no zero points";
    if (weight.cols % 4 != 0) return "of 2:4 rows of a multiple of 4 are taken";
    if (tier != Tier::generic && tier != Tier::avx512) {
      return std::string("sparse codes are not expanded by ") + tier_name(tier);
    }
  }
  return "";
}

Aligned pack(const Planes& planes, Tier tier, Mode mode) {
  Weight weight = geometry(planes.format, planes.rows, planes.cols, mode);
  const Canon canon(planes.format, planes.rows, planes.cols);
  const Source from = {raw(plane(planes, "codes", canon.codes_size())),
                       raw(plane(planes, "scale", canon.scale_count() * weight.scale_bytes)),
                       weight.affine ? raw(plane(planes, "zero", canon.zero_size())) : nullptr,
                       canon.sparse ? raw(plane(planes, "mask", canon.mask_size())) : nullptr};
  MatrixView view = header_for(planes, kKernel, tier, mode);
  view.step = weight.step;
  view.offset[0] = kHeader;
  view.length[0] = weight.tile_bytes * weight.tile_count();
  view.size = kHeader + view.length[0];
  Aligned layout(view.size);
  std::memcpy(layout.data(), &view, sizeof view);
  auto* tiles = reinterpret_cast<uint8_t*>(layout.data() + kHeader);
  Square square(weight);
  for (int tile = 0; tile < weight.tile_count(); ++tile) {
    write_tile(weight, canon, from, tile, &square, tiles + tile * weight.tile_bytes);
  }
  return layout;
}

Weight weight_of(Bytes layout) {
  const MatrixView& view = view_of(layout);
  const Stored stored = described(view);
  const Planes planes = {stored.format, stored.rows, stored.cols, stored.input_scale, {}};
  const std::string reason = refusal(planes, Tier::generic, view.mode);
  if (!reason.empty()) throw LayoutError("the layout's header is damaged: " + reason);
  Weight weight = geometry(stored.format, stored.rows, stored.cols, view.mode);
  if (view.step != weight.step || view.length[0] != weight.tile_bytes * weight.tile_count()) {
    throw LayoutError("the layout's header is damaged: its sizes do not agree");
  }
  weight.tiles = raw(layout) + view.offset[0];
  return weight;
}

Stored unpack(Bytes layout) {
  const Weight weight = weight_of(layout);
  Stored stored = described(view_of(layout));
  const Canon canon(stored.format, stored.rows, stored.cols);
  auto& codes = stored.planes["codes"];
  auto& scale = stored.planes["scale"];
  codes.assign(canon.codes_size(), std::byte{0});
  scale.assign(canon.scale_count() * weight.scale_bytes, std::byte{0});
  Target to = {reinterpret_cast<uint8_t*>(codes.data()), reinterpret_cast<uint8_t*>(scale.data()),
               nullptr, nullptr};
  if (canon.sparse) {
    auto& mask = stored.planes["mask"];
    mask.assign(canon.mask_size(), std::byte{0});
    to.mask = reinterpret_cast<uint8_t*>(mask.data());
  }
  if (weight.affine) {
    auto& zero = stored.planes["zero"];
    zero.assign(canon.zero_size(), std::byte{0});
    to.zero = reinterpret_cast<uint8_t*>(zero.data());
  }
  Square square(weight);
  for (int tile = 0; tile < weight.tile_count(); ++tile) {
    read_tile(weight, canon, tile, weight.tiles + tile * weight.tile_bytes, &square, to);
  }
  return stored;
}

}  // namespace whet::integer
