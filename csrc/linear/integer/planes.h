// From the planes of a block to its codes, in the vectors of whatever tier includes this: 64 bytes
// of a quad, or the part of them that a register holds. Internal linkage throughout.
#pragma once

#include <cstdint>
#include <cstring>

#include "linear/integer/layout.h"

namespace whet::integer {
namespace {

#if defined(__x86_64__)
using Shifted = uint16_t;  // what the tier shifts at once
#else
using Shifted = uint8_t;
#endif

template <class Register>
static inline Register loaded(const uint8_t* at) {
  Register bytes;
  std::memcpy(&bytes, at, sizeof bytes);
  return bytes;
}

// Bits [Right, Right + Width) of each byte, moved to Place.
template <int Width, int Right, int Place, class Register>
static inline Register moved(Register plane) {
  typedef Shifted Units __attribute__((vector_size(sizeof(Register))));
  typedef uint8_t Codes __attribute__((vector_size(sizeof(Register))));
  Units units = reinterpret_cast<Units>(plane);
  if constexpr (Right > Place) units = units >> (Right - Place);
  if constexpr (Right < Place) units = units << (Place - Right);
  if constexpr (sizeof(Shifted) == 1 && Place == 0 && Right + Width == 8) {
    return reinterpret_cast<Register>(units);  // zeros came in from the left
  } else {
    constexpr auto kMask = static_cast<uint8_t>(((1 << Width) - 1) << Place);
    return reinterpret_cast<Register>(units) & reinterpret_cast<Register>(Codes{} + kMask);
  }
}

template <int Width, int Place, int Quads, int Quad = 0, class Register>
static inline void add_plane(const uint8_t* at, Register* codes) {
  if constexpr (Quad < Quads) {
    constexpr int packed = 8 / Width;
    const Register plane = loaded<Register>(at + Quad / packed * kVector);
    if constexpr (Width == 8) {
      codes[Quad] = plane;
    } else {
      const Register part = moved<Width, Quad % packed * Width, Place>(plane);
      codes[Quad] = Place == 0 ? part : (codes[Quad] | part);
    }
    add_plane<Width, Place, Quads, Quad + 1>(at, codes);
  }
}

// The codes of a block, a register a quad; `at` is the first byte of the registers' rows.
template <int Coding, int Quads, class Register>
static inline void unpack(const uint8_t* at, Register* codes) {
  constexpr Widths w = widths_of(width_of(Coding));
  constexpr auto bytes = [](int width) { return (Quads * width + 7) / 8 * kVector; };
  add_plane<w.width[0], 0, Quads>(at, codes);
  if constexpr (w.width[1] != 0) {
    add_plane<w.width[1], w.width[0], Quads>(at + bytes(w.width[0]), codes);
  }
  if constexpr (w.width[2] != 0) {
    add_plane<w.width[2], w.width[0] + w.width[1], Quads>(
        at + bytes(w.width[0]) + bytes(w.width[1]), codes);
  }
}

// The prepared inputs of a batch.
struct Batch {
  const int8_t* x;
  const float* scales;
  const int32_t* sums;
};

static inline Batch batch_of(const Input& input, int token) {
  return {input.codes_of(token), input.scales_of(token), input.sums_of(token)};
}

}  // namespace
}  // namespace whet::integer
