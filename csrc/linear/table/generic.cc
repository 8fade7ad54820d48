// Table kernels in portable C++: the oracle of the other tiers.
#include "linear/table/portable.h"

namespace whet::table {
namespace {

void Lanes::block(int bits, const std::byte* at, const float* table, bool by_row, float* out) {
  switch (bits) {
    case 2:
      return scalar_block<2>(at, table, by_row, out);
    case 3:
      return scalar_block<3>(at, table, by_row, out);
    case 4:
      return scalar_block<4>(at, table, by_row, out);
    case 5:
      return scalar_block<5>(at, table, by_row, out);
    case 6:
      return scalar_block<6>(at, table, by_row, out);
    case 7:
      return scalar_block<7>(at, table, by_row, out);
    default:
      return scalar_block<8>(at, table, by_row, out);
  }
}

void Lanes::rows(const float* values, const float* scale, const float* offset, const float* x,
                 const float* sums, int tokens, int inputs, float* y) {
  for (int t = 0; t < tokens; ++t, y += kRows) {
    float sum[kRows];
    for (int r = 0; r < kRows; ++r) sum[r] = sums ? offset[r] * sums[t] : 0;
    for (int i = 0; i < inputs; ++i)
      for (int r = 0; r < kRows; ++r) sum[r] += values[i * kRows + r] * x[i * tokens + t];
    for (int r = 0; r < kRows; ++r) y[r] += scale[r] * sum[r];
  }
}

void Lanes::row(const float* values, float scale, const float* x, int width, int tokens, int inputs,
                float* y) {
  for (int t = 0; t < tokens; ++t, y += kRows, x += width) {
    float sum[kRows] = {};
    for (int i = 0; i < inputs; i += kRows)
      for (int r = 0; r < kRows; ++r) sum[r] += values[i + r] * x[i + r];
    for (int r = 0; r < kRows; ++r) y[r] += scale * sum[r];
  }
}

}  // namespace

const Kernels kGeneric{Lanes::kTokens, 4, prepare, scratch_bytes, multiply};

}  // namespace whet::table
