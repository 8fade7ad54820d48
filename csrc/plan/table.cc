#include "plan/table.h"

#include <cmath>
#include <cstring>

#include "base/half.h"

namespace whet {
namespace {

constexpr size_t kWidths[] = {4, 2, 2};

float e4m3(uint8_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                        : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return bits & 0x80 ? -magnitude : magnitude;
}

float scale_at(const Term& term, const std::byte* from, size_t index) {
  const auto half = [=] {
    uint16_t bits;
    std::memcpy(&bits, from + 2 * index, sizeof bits);
    return bits;
  };
  switch (term.scale_kind) {
    case ScaleKind::f16: return f16_to_f32(half());
    case ScaleKind::bf16: return bf16_to_f32(half());
    case ScaleKind::e8m0: return std::ldexp(1.0f, static_cast<int>(from[index]) - 127);
    case ScaleKind::e4m3: return e4m3(static_cast<uint8_t>(from[index])) * term.whole;
    case ScaleKind::f32: break;
  }
  float value;
  std::memcpy(&value, from + 4 * index, sizeof value);
  return value;
}

// A code of a dense little-endian bit stream that is `stride` bytes apart.
unsigned code_at(const uint8_t* stream, int bits, size_t index, size_t stride) {
  const size_t bit = index * bits;
  unsigned word = stream[bit / 8 * stride];
  if (bit % 8 + bits > 8) word |= static_cast<unsigned>(stream[(bit / 8 + 1) * stride]) << 8;
  return word >> bit % 8 & ((1u << bits) - 1);
}

void add_term(const Term& term, int index, int width, bool first, float* out) {
  const uint8_t* const codes = term.codes + static_cast<size_t>(index) * term.row_bytes;
  for (int g = 0; g < term.groups; ++g) {
    const size_t place = term.single ? 0 : static_cast<size_t>(index) * term.groups + g;
    const float scale = scale_at(term, term.scale, place);
    const float minimum = term.minimum == nullptr ? 0.0f : scale_at(term, term.minimum, place);
    float zero = 0.0f;
    if (term.zero != nullptr)
      zero = static_cast<float>(term.single ? term.zero[0] & ((1u << term.bits) - 1)
                                            : code_at(term.zero + g, term.bits, index, term.groups));
    const int end = (g + 1) * term.group < width ? (g + 1) * term.group : width;
    for (int c = g * term.group; c < end; ++c) {
      const unsigned code = code_at(codes, term.bits, c, 1);
      const float unit = term.own_levels == nullptr
                             ? term.levels[code]
                             : f16_to_f32(term.own_levels[(static_cast<size_t>(index) << term.bits) + code]);
      const float value = scale * (unit - zero) + minimum;
      out[c] = first ? value : out[c] + value;
    }
  }
}

}  // namespace

void Vectors::row(const Rows& tier, int index, float* out) const {
  if (plain != nullptr) {
    tier.widen(number, plain + static_cast<size_t>(index) * width * kWidths[static_cast<int>(number)], width, out);
    return;
  }
  for (size_t i = 0; i < terms.size(); ++i) add_term(terms[i], index, width, i == 0, out);
}

}  // namespace whet
