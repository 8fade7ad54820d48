// What a number format can write, for many outputs at once: scales, zero points and levels.
#pragma once

#include <cstdint>

namespace whet {

// How a ratio w / scale becomes a unit.
enum class Rounding : int {
  integer = 0,  // to the nearest integer from `low` to `high`; with a zero point z, 0 - z to top - z
  minifloat = 1,  // half to even, with subnormals, saturating
  table = 2,      // one table of levels for all outputs
  tables = 3,     // a table for each output
};

// How scales are stored: as src/whet/formats/scales.py says.
enum class Stored : int { bf16 = 0, f16 = 1, f32 = 2, e8m0 = 3, e4m3 = 4 };

struct Grid {
  Rounding rounding = Rounding::integer;
  Stored stored = Stored::f32;
  float whole = 1.0f;  // what e4m3 scales are multiplied by

  float low = 0.0f, high = 0.0f;  // integers; with zero points `high` is the greatest code
  float top = 0.0f;               // the greatest minifloat, its least normal number,
  float least = 0.0f, step = 0.0f;  // and the step between numbers from 1 to 2
  int levels = 0;                 // of a table, ascending; a ratio above bounds[i] is above level i
  const float* bounds = nullptr;  // [levels - 1], or [levels - 1, outputs]
  const float* values = nullptr;  // [levels], or [levels, outputs]

  int group = 1;           // inputs that share a scale
  float* scale = nullptr;  // [groups, outputs]
  float* zero = nullptr;   // likewise; may be missing
  bool moves_zero = false;
  const float* mask = nullptr;  // [inputs, outputs] zero or one; may be missing
};

}  // namespace whet
