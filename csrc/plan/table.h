// Rows of an embedding, looked up in the planes that a folder holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ops/rows.h"

namespace whet {

enum class ScaleKind : int { f32 = 0, f16 = 1, bf16 = 2, e8m0 = 3, e4m3 = 4 };

// A matrix of codes; its rows are sums of the rows of terms. Memory is owned elsewhere.
struct Term {
  int bits = 0, group = 0, groups = 0;
  bool single = false;      // one scale (and zero point) for the matrix
  size_t row_bytes = 0;
  const uint8_t* codes = nullptr;
  const std::byte* scale = nullptr;
  ScaleKind scale_kind = ScaleKind::f32;
  const uint8_t* zero = nullptr;     // packed along the rows
  const std::byte* minimum = nullptr;  // as many as scales, stored as they are; or null
  std::vector<float> levels;         // of every code: 2^bits, or none where each row has its own
  const uint16_t* own_levels = nullptr;  // f16, 2^bits a row
  float whole = 1.0f;                // multiplies all scales
};

struct Vectors {
  int rows = 0, width = 0;
  Number number = Number::f32;       // of `plain`
  const std::byte* plain = nullptr;  // or
  std::vector<Term> terms;

  // Writes a row in float32.
  void row(const Rows& tier, int index, float* out) const;
};

}  // namespace whet
