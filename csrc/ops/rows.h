// Operators on single rows of float32, a table of them for each tier.
#pragma once

#include <cstdint>

namespace whet {

enum class Nonlinearity : int { silu = 0, gelu = 1, gelu_tanh = 2, relu = 3 };
enum class Number : int { f32 = 0, f16 = 1, bf16 = 2 };

struct Rows {
  // x · gain / sqrt(mean(x²) + eps); a missing gain is one.
  void (*rms)(const float* x, const float* gain, float eps, int width, float* out);
  // (x - mean) / sqrt(variance + eps) · gain + bias; both may be missing.
  void (*layer)(const float* x, const float* gain, const float* bias, float eps, int width,
                float* out);
  void (*add)(const float* a, const float* b, int width, float* out);
  void (*scale)(const float* x, float factor, int width, float* out);
  void (*cap)(const float* x, float limit, int width, float* out);  // limit · tanh(x / limit)
  void (*add_scaled)(const float* x, float factor, int width, float* out);  // out += factor · x
  void (*activate)(Nonlinearity kind, const float* x, int width, float* out);
  void (*gate)(Nonlinearity kind, const float* gate, const float* up, int width, float* out);
  // Turns the pairs (i, i + pairs) of a head by the angles of a position.
  void (*turn)(const float* cosine, const float* sine, int pairs, float* head);
  void (*widen)(Number from, const void* x, int width, float* out);
  float (*dot)(const float* a, const float* b, int width);
  void (*softmax)(float* x, int width);
};

const Rows& rows_generic();
const Rows& rows_avx2();
const Rows& rows_avx512();
const Rows& rows_neon();

}  // namespace whet
