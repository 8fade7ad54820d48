// The canonical planes of a weight, by row and group, and how they and tiles are gone through.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "linear/integer/layout.h"

namespace whet::integer {

struct Canon {
  int bits, groups, rows, cols;
  bool tensor;
  std::size_t row_bytes, mask_bytes, zero_stride;

  Canon(const Format& format, int rows_, int cols_)
      : bits(format.bits), rows(rows_), cols(cols_), tensor(format.group == kTensor) {
    groups = format.group > 0 ? (cols + format.group - 1) / format.group : 1;
    row_bytes = (static_cast<std::size_t>(cols) * bits + 7) / 8;
    mask_bytes = (static_cast<std::size_t>(cols) + 7) / 8;
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

struct Source {
  const uint8_t *codes, *scale, *zero, *minimum, *mask;
};

struct Target {
  uint8_t *codes, *scale, *zero, *minimum, *mask;
};

inline const uint8_t* raw(Bytes bytes) { return reinterpret_cast<const uint8_t*>(bytes.data()); }

// Code i of a little-endian bit stream whose bytes lie `stride` apart.
inline unsigned code_at(const uint8_t* bytes, std::size_t size, std::size_t stride, std::size_t i,
                        int bits) {
  const std::size_t bit = i * bits, at = bit / 8;
  unsigned word = bytes[at * stride];
  if (at + 1 < size) word |= static_cast<unsigned>(bytes[(at + 1) * stride]) << 8;
  return word >> (bit % 8) & ((1u << bits) - 1);
}

inline void put_code(uint8_t* bytes, std::size_t stride, std::size_t i, int bits, unsigned code) {
  const std::size_t bit = i * bits, at = bit / 8;
  const unsigned word = code << (bit % 8);
  bytes[at * stride] |= static_cast<uint8_t>(word);
  if (word >> 8) bytes[(at + 1) * stride] |= static_cast<uint8_t>(word >> 8);
}

// Goes along a tile: calls head(at, group), and block(at, first column, quads), which returns where
// the next one begins. Returns where the tile ends.
template <class At, class Head, class Block>
At walk(const Weight& weight, At at, Head&& head, Block&& block) {
  for (int step = 0; step < weight.steps; ++step) {
    if (step % weight.group == 0) {
      head(at, step / weight.group);
      at += weight.head;
    }
    for (int done = 0; done < weight.step; done += kBlock) {
      at = block(at, step * weight.step + done, std::min(kBlock, weight.step - done) / 4);
    }
  }
  return at;
}

inline void write_head(const Weight& weight, const Canon& canon, const Source& from, int tile,
                       int group, uint8_t* head) {
  const int rows = std::min(kRows, weight.rows - tile * kRows);
  const std::size_t zero_rows = canon.tensor ? 1 : canon.zero_size() / canon.zero_stride;
  for (int r = 0; r < rows; ++r) {
    const std::size_t row = canon.tensor ? 0 : static_cast<std::size_t>(tile) * kRows + r;
    std::memcpy(head + r * weight.scale_bytes,
                from.scale + (row * canon.groups + group) * weight.scale_bytes, weight.scale_bytes);
    if (weight.minimum) {
      std::memcpy(head + (kRows + r) * weight.scale_bytes,
                  from.minimum + (row * canon.groups + group) * weight.scale_bytes,
                  weight.scale_bytes);
    }
    if (weight.affine) {
      head[kRows * weight.scale_bytes + r] = static_cast<uint8_t>(
          code_at(from.zero + group, zero_rows, canon.zero_stride, row, canon.bits));
    }
  }
}

inline void read_head(const Weight& weight, const Canon& canon, int tile, int group,
                      const uint8_t* head, const Target& to) {
  const int rows = canon.tensor ? (tile == 0 ? 1 : 0) : std::min(kRows, weight.rows - tile * kRows);
  for (int r = 0; r < rows; ++r) {
    const std::size_t row = static_cast<std::size_t>(tile) * kRows + r;
    std::memcpy(to.scale + (row * canon.groups + group) * weight.scale_bytes,
                head + r * weight.scale_bytes, weight.scale_bytes);
    if (weight.minimum) {
      std::memcpy(to.minimum + (row * canon.groups + group) * weight.scale_bytes,
                  head + (kRows + r) * weight.scale_bytes, weight.scale_bytes);
    }
    if (weight.affine) {
      put_code(to.zero + group, canon.zero_stride, row, canon.bits,
               head[kRows * weight.scale_bytes + r]);
    }
  }
}

// Weights of which only some codes are stored: linear/integer/kept.cc.
Aligned pack_kept(const Weight& weight, const Canon& canon, Source from, const Planes& planes,
                  MatrixView view);
// Finds the tiles of a layout; throws LayoutError unless each ends where the next one begins.
void find_tiles(Bytes layout, const MatrixView& view, Weight* weight);
// Writes the masks; returns where each row's codes begin among those of all, and their number.
std::vector<std::size_t> read_masks(const Weight& weight, const Canon& canon, const Target& to);
// Writes the codes and scales of a tile.
void read_kept(const Weight& weight, const Canon& canon, const std::vector<std::size_t>& rows,
               int tile, const Target& to);

}  // namespace whet::integer
