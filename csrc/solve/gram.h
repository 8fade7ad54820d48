// Sums of outer products of activations, rounded to 8 bits: the statistics of calibration.
//
// Each channel of some tokens is rounded to 255 steps over its range; products are those of the
// codes, added up exactly, so that results depend neither on the tier nor on the number of threads.
// The slow twin is src/whet/kernels/gram.py.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/aligned.h"
#include "base/cpu.h"

namespace whet {

inline constexpr int kCodesPanel = 64;  // channels that lie side by side
inline constexpr int kQuad = 4;         // tokens whose codes lie side by side

// Codes of activations [tokens, channels], in panels of channels, [panel][quad][channel][token].
struct Codes {
  int tokens = 0, channels = 0;
  Aligned codes, scales, sums, energies;  // int8; of each channel: float, int32 and float

  Codes(int tokens, int channels);
  int quads() const { return (tokens + kQuad - 1) / kQuad; }
  int panels() const { return (channels + kCodesPanel - 1) / kCodesPanel; }
  std::size_t panel_bytes() const {
    return static_cast<std::size_t>(quads()) * kCodesPanel * kQuad;
  }
  int8_t* panel(int number) {
    return reinterpret_cast<int8_t*>(codes.data()) + panel_bytes() * static_cast<std::size_t>(number);
  }
  const int8_t* panel(int number) const { return const_cast<Codes*>(this)->panel(number); }
  float* scale() { return reinterpret_cast<float*>(scales.data()); }
  const float* scale() const { return reinterpret_cast<const float*>(scales.data()); }
  int32_t* sum() { return reinterpret_cast<int32_t*>(sums.data()); }
  const int32_t* sum() const { return reinterpret_cast<const int32_t*>(sums.data()); }
  float* energy() { return reinterpret_cast<float*>(energies.data()); }
  const float* energy() const { return reinterpret_cast<const float*>(energies.data()); }
};

// What works on one panel, or on a pair of them.
struct Grammar {
  // Rounds the channels of a panel of x, or of x - minus; also sums their squares.
  void (*encode)(const float* x, const float* minus, Codes& into, int panel);
  // products[i][j] = Σ over tokens of the codes of channels i and j of two panels.
  void (*multiply)(const Codes& left, int i, const Codes& right, int j, int32_t* products);
};

const Grammar& grammar_generic();
const Grammar& grammar_avx512();

// Rounds activations [tokens, channels], less `minus` if there is one.
void encode(Tier tier, const float* x, const float* minus, Codes& into, int threads);

// total [left channels, right channels] += leftᵀ · right; of one with itself each product is made once.
void add_products(Tier tier, const Codes& left, const Codes& right, float* total, int threads);

}  // namespace whet
