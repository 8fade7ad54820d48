// Panels: some outputs of a matrix side by side, [rows, kPanel], and products with them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/vector.h"

namespace whet {
namespace {

inline constexpr int kVectors = kLanes == 16 ? 4 : 2;
inline constexpr int kPanel = kVectors * kLanes;  // outputs
inline constexpr int kRows = 4;                   // that are summed in registers together

inline float* row(float* panel, int index) { return panel + static_cast<size_t>(index) * kPanel; }
inline const float* row(const float* panel, int index) {
  return panel + static_cast<size_t>(index) * kPanel;
}

// One row of a panel of a matrix [rows, outputs]; beyond its last output there is `rest`.
inline void take(const float* from, int outputs, int first, float rest, float* to) {
  const int count = outputs - first < kPanel ? outputs - first : kPanel;
  if (count == kPanel) {
    std::memcpy(to, from + first, kPanel * sizeof(float));
    return;
  }
  std::memcpy(to, from + first, static_cast<size_t>(count) * sizeof(float));
  for (int i = count; i < kPanel; ++i) to[i] = rest;
}

inline void give(const float* from, int outputs, int first, float* to) {
  const int count = outputs - first < kPanel ? outputs - first : kPanel;
  std::memcpy(to + first, from, static_cast<size_t>(count) * sizeof(float));
}

inline void take_rows(const float* from, int rows, int outputs, int first, float rest, float* to) {
  for (int r = 0; r < rows; ++r) {
    take(from + static_cast<size_t>(r) * outputs, outputs, first, rest, row(to, r));
  }
}

inline void give_rows(const float* from, int rows, int outputs, int first, float* to) {
  for (int r = 0; r < rows; ++r) {
    give(row(from, r), outputs, first, to + static_cast<size_t>(r) * outputs);
  }
}

// A number in every lane; of all, the one way that is not an addition.
inline Vector broadcast(float x) { return x - Vector{}; }

inline bool any(const float* panel_row) {
  Integers bits{};
  for (int v = 0; v < kVectors; ++v) {
    bits |= reinterpret_cast<Integers>(load(panel_row + v * kLanes)) & 0x7fffffff;
  }
  uint64_t words[kLanes / 2], found = 0;
  std::memcpy(words, &bits, sizeof bits);
  for (const uint64_t word : words) found |= word;
  return found != 0;
}

// Rows that are not zero, of which products are made.
struct Moved {
  const float* panel;  // [count of rows, kPanel]
  const int* rows;
  int count;
};

inline Moved moved_rows(const float* panel, int rows, int* found) {
  int count = 0;
  for (int r = 0; r < rows; ++r) {
    if (any(row(panel, r))) found[count++] = r;
  }
  return {panel, found, count};
}

// into[r] += Σ over moved rows k of m(r, k) · moved[k], for some neighbouring rows.
template <int Rows, class Coefficient>
inline void add_some(float* into, const Moved& moved, Coefficient&& m, int r) {
  Vector sum[Rows][kVectors];
  for (int i = 0; i < Rows; ++i) {
    for (int v = 0; v < kVectors; ++v) sum[i][v] = load(row(into, i) + v * kLanes);
  }
  for (int j = 0; j < moved.count; ++j) {
    const int k = moved.rows[j];
    const float* const from = row(moved.panel, k);
    Vector x[kVectors];
    for (int v = 0; v < kVectors; ++v) x[v] = load(from + v * kLanes);
    for (int i = 0; i < Rows; ++i) {
      const Vector factor = broadcast(m(r + i, k));
      for (int v = 0; v < kVectors; ++v) sum[i][v] = fused(factor, x[v], sum[i][v]);
    }
  }
  for (int i = 0; i < Rows; ++i) {
    for (int v = 0; v < kVectors; ++v) store(row(into, i) + v * kLanes, sum[i][v]);
  }
}

// Coefficients of products: a part of a matrix, m(r, k) = at[r · down + k · right].
struct Coefficients {
  const float* at;
  size_t down, right;
  float operator()(int r, int k) const {
    return at[static_cast<size_t>(r) * down + static_cast<size_t>(k) * right];
  }
  // Asks for the rows that come next: they lie too far apart for the processor to guess.
  void fetch(int begin, int end, int count) const {
    if (right != 1) return;
    for (int r = begin; r < end; ++r) {
      const float* const from = at + static_cast<size_t>(r) * down;
      for (int k = 0; k < count; k += 16) __builtin_prefetch(from + k);
    }
  }
};

// The same for rows `begin` to `end` of a panel, of `count` rows that may have moved.
inline void add_products(float* panel, int begin, int end, const Moved& moved, int count,
                         const Coefficients& m) {
  if (moved.count == 0) return;
  int r = begin;
  for (; r + kRows <= end; r += kRows) {
    m.fetch(r + kRows, r + 2 * kRows < end ? r + 2 * kRows : end, count);
    add_some<kRows>(row(panel, r), moved, m, r);
  }
  for (; r < end; ++r) add_some<1>(row(panel, r), moved, m, r);
}

// Floats from a block of memory, one array after the other; of none, only how many there would be.
class Arena {
 public:
  explicit Arena(float* memory) : memory_(memory) {}
  float* floats(size_t count) {
    float* const found = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += (count + 15) / 16 * 16;
    return found;
  }
  float* panel(int rows) { return floats(static_cast<size_t>(rows) * kPanel); }
  size_t used() const { return used_; }

 private:
  float* memory_;
  size_t used_ = 0;
};

}  // namespace
}  // namespace whet
