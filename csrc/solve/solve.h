// Second-order rounding of a weight: GPTQ, and sweeps of coordinate descent. Matrices are
// [inputs, outputs]; each output is a problem of its own, so outputs run side by side in the lanes
// of vectors, and a result depends neither on their number nor on that of the threads.
//
// The mathematics, and the slow twin, is src/whet/methods/solve/{columns,descent}.py.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/cpu.h"
#include "solve/grid.h"

namespace whet {

// GPTQ: inputs are rounded in `order`, the last first; `lower` is the factor in that order.
struct Columns {
  int inputs = 0, outputs = 0;
  const float* target = nullptr;   // [inputs, outputs]
  const float* lower = nullptr;    // [inputs, inputs]
  const int64_t* order = nullptr;  // [inputs]
  float* result = nullptr;         // [inputs, outputs]
  float* loss = nullptr;           // [outputs]
};

// One sweep of coordinate descent: codes anew where `recode`, then scales and zero points where
// `settle`; slab by slab where `local`, else the scales after all codes.
struct Sweep {
  int inputs = 0, outputs = 0;
  float* values = nullptr;      // [inputs, outputs]
  float* gradient = nullptr;    // [inputs, outputs]: (H + ridge·I)(values - target)
  const float* gram = nullptr;  // [inputs, inputs], symmetric
  float ridge = 0.0f;
  bool recode = true, settle = true, local = true;
  int slab = 128;  // inputs whose codes are chosen before the others hear of it
};

// What works on one panel: `lanes` outputs from `first` on. `scratch` holds that many floats.
struct Solver {
  int lanes;
  size_t (*scratch)(int inputs, const Grid& grid);
  void (*columns)(const Columns& problem, const Grid& grid, int first, float* scratch);
  int64_t (*sweep)(const Sweep& problem, const Grid& grid, int first, float* scratch);
};

const Solver& solver_of(Tier tier);
const Solver& solver_generic();
const Solver& solver_avx2();
const Solver& solver_avx512();
const Solver& solver_neon();

// All panels, by so many threads. A sweep returns how many codes changed.
void solve_columns(const Columns& problem, const Grid& grid, int threads);
int64_t solve_sweep(const Sweep& problem, const Grid& grid, int threads);

}  // namespace whet
