// Integer weights times int8 activations, in portable C++: what the other tiers must equal.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "linear/integer/layout.h"

namespace whet::integer {
namespace {

#include "linear/integer/prepare.inl"

// The codes of a block of which some are stored; the others stand for zero.
const uint8_t* expand(const uint8_t* in, int coding, int quads, uint8_t* codes) {
  const int width = width_of(coding);
  const uint8_t* masks = in;
  in += quads * 8;
  for (int quad = 0; quad < quads; ++quad, masks += 8) {
    int next = 0;
    for (int byte = 0; byte < kVector; ++byte) {
      *codes = static_cast<uint8_t>(1 << (width - 1));
      if (masks[byte / 8] >> (byte % 8) & 1) {
        *codes = width == 8 ? in[next] : in[next / 2] >> (next % 2 * 4) & 15;
        ++next;
      }
      ++codes;
    }
    in += kept_bytes(coding, static_cast<std::size_t>(next));
  }
  return in;
}

// The codes of a block, [quad][row][4]; returns where the next one begins.
const uint8_t* unpack(const uint8_t* in, const Weight& weight, int quads, uint8_t* codes) {
  if (is_sparse(weight.coding)) return expand(in, weight.coding, quads, codes);
  std::memset(codes, 0, static_cast<std::size_t>(quads) * kVector);
  const Widths widths = widths_of(weight.bits);
  for (int i = 0, shift = 0; i < 4 && widths.width[i]; shift += widths.width[i++]) {
    const int width = widths.width[i], packed = 8 / width;
    const unsigned mask = (1u << width) - 1;
    for (int quad = 0; quad < quads; ++quad) {
      const uint8_t* vector = in + quad / packed * kVector;
      const int right = quad % packed * width;
      for (int byte = 0; byte < kVector; ++byte) {
        codes[quad * kVector + byte] |=
            static_cast<uint8_t>((vector[byte] >> right & mask) << shift);
      }
    }
    in += (quads + packed - 1) / packed * kVector;
  }
  for (int i = 0; is_mapped(weight.coding) && i < quads * kVector; ++i) {
    codes[i] = weight.levels[codes[i]];
  }
  return in;
}

void read_scales(const uint8_t* in, Scale kind, float* scales) {
  for (int r = 0; r < kRows; ++r) {
    uint16_t half;
    switch (kind) {
      case Scale::bf16:
        std::memcpy(&half, in + 2 * r, 2);
        scales[r] = bf16_to_f32(half);
        break;
      case Scale::f16:
        std::memcpy(&half, in + 2 * r, 2);
        scales[r] = f16_to_f32(half);
        break;
      case Scale::f32:
        std::memcpy(scales + r, in + 4 * r, 4);
        break;
      default:  // an exponent; that of zero is 2^-127
        scales[r] =
            std::bit_cast<float>(in[r] == 0 ? 0x00400000u : static_cast<uint32_t>(in[r]) << 23);
    }
  }
}

// Adds a block's products to the sums of the sixteen rows; quads of inputs lie `apart` bytes apart.
void add_block(const uint8_t* codes, const int8_t* x, int apart, int quads, int32_t* sums) {
  for (int quad = 0; quad < quads; ++quad, codes += kVector, x += apart) {
    for (int r = 0; r < kRows; ++r) {
      const uint8_t* c = codes + r * 4;
      sums[r] += c[0] * x[0] + c[1] * x[1] + c[2] * x[2] + c[3] * x[3];
    }
  }
}

// One tile and the token whose halves make the batch that begins with `first`.
void row_sums(const Weight& weight, const uint8_t* at, const Input& input, int first, int halves,
              float* y) {
  float scales[kRows], minima[kRows] = {};
  int32_t zeros[kRows], sums[kRows], upper[kRows];
  uint8_t codes[kQuads * kVector];
  std::fill(y, y + kRows, 0.0f);
  std::fill(zeros, zeros + kRows, weight.half());
  const int8_t* x = input.codes_of(first);
  for (int step = 0; step < weight.steps; ++step) {
    if (step % weight.group == 0) {
      read_scales(at, weight.scale, scales);
      for (float& scale : scales) scale *= weight.unit;
      const uint8_t* zero = at + kRows * weight.scale_bytes;
      for (int r = 0; weight.affine && r < kRows; ++r) zeros[r] = zero[r];
      if (weight.minimum) read_scales(zero, weight.scale, minima);
      at += weight.head;
    }
    const int number = step * halves + halves - 1;
    const int32_t negated = input.sums_of(first)[number];
    for (int r = 0; r < kRows; ++r) sums[r] = zeros[r] * negated;
    std::fill(upper, upper + kRows, 0);
    for (int done = 0; done < weight.step; done += kBlock) {
      const int quads = std::min(kBlock, weight.step - done) / 4;
      at = unpack(at, weight, quads, codes);
      add_block(codes, x + 4 * (halves - 1), 4 * halves, quads, sums);
      if (halves == 2) add_block(codes, x, 4 * halves, quads, upper);
      x += quads * 4 * halves;
    }
    const float a = input.scales_of(first)[number];
    for (int r = 0; r < kRows; ++r) {
      y[r] = std::fma(static_cast<float>(256 * upper[r] + sums[r]), scales[r] * a, y[r]);
      if (weight.minimum) y[r] = std::fma(minima[r], a * static_cast<float>(-negated), y[r]);
    }
  }
}

void multiply(const Weight& weight, const Input& input, int count, const Output& out, std::byte*,
              int first, int last) {
  for (int tile = first; tile < last; ++tile) {
    const int rows = std::min(kRows, weight.rows - tile * kRows);
    for (int begin = 0; begin < count; begin += out.halves) {
      float sums[kRows];
      row_sums(weight, weight.tile(tile), input, begin, out.halves, sums);
      float* y = out.y + static_cast<std::size_t>(begin / out.halves) * out.stride + tile * kRows;
      for (int r = 0; r < rows; ++r) y[r] = out.accumulate ? y[r] + sums[r] : sums[r];
    }
  }
}

std::size_t scratch(const Weight&, int) { return 0; }

int together(int, int halves) { return halves; }

}  // namespace

const Routines kGeneric = {prepare, together, multiply, scratch, 1};

}  // namespace whet::integer
