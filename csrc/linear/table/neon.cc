// Table kernels with NEON: levels and products in float32.
#include <arm_neon.h>

#include "linear/table/portable.h"

namespace whet::table {
namespace {

constexpr int kMostLooked = 6;  // bits of codes whose table fits into registers

// A table of float32 by the bytes of its numbers: up to 64 numbers, 16 in a register.
template <int kBits>
struct Lookup {
  static constexpr int kRegisters = kBits <= 4 ? 1 : 1 << (kBits - 4);
  uint8x16_t bytes[4][kRegisters];

  explicit Lookup(const float* table) {
    const auto* at = reinterpret_cast<const uint8_t*>(table);
    for (int i = 0; i < kRegisters; ++i) {
      const uint8x16x4_t sixteen = vld4q_u8(at + 64 * i);
      for (int b = 0; b < 4; ++b) bytes[b][i] = sixteen.val[b];
    }
  }

  uint8x16_t byte(int b, uint8x16_t codes) const {
    if constexpr (kRegisters == 1) {
      return vqtbl1q_u8(bytes[b][0], codes);
    } else if constexpr (kRegisters == 2) {
      return vqtbl2q_u8({{bytes[b][0], bytes[b][1]}}, codes);
    } else {
      return vqtbl4q_u8({{bytes[b][0], bytes[b][1], bytes[b][2], bytes[b][3]}}, codes);
    }
  }

  // Writes the numbers of sixteen codes; what lies above them in their bytes is ignored.
  void write(uint8x16_t codes, float* out) const {
    codes = vandq_u8(codes, vdupq_n_u8((1 << kBits) - 1));
    vst4q_u8(reinterpret_cast<uint8_t*>(out),
             {{byte(0, codes), byte(1, codes), byte(2, codes), byte(3, codes)}});
  }
};

// Code `kIndex` of eight lanes, in the low byte of their words.
template <int kBits, int kIndex>
uint16x8_t codes_at(const uint16x8_t* words) {
  constexpr Pieces where = pieces(kBits, kIndex);
  if constexpr (where.count == 1) {
    return words[4 * where.piece[0].word] >> where.piece[0].shift;
  } else {
    uint16x8_t codes = vdupq_n_u16(0);
    int at = 0;
    for (int p = 0; p < where.count; at += where.piece[p++].bits) {
      const uint16x8_t part = (words[4 * where.piece[p].word] >> where.piece[p].shift) &
                              vdupq_n_u16((1 << where.piece[p].bits) - 1);
      codes |= part << at;
    }
    return codes;
  }
}

template <int kBits, int kIndex>
void write_code(const uint16x8_t* words, const Lookup<kBits>& lookup, bool by_row, float* out) {
  uint8x16_t codes[2];
  for (int half = 0; half < 2; ++half) {
    const uint16x8_t *low = words + 2 * half, *high = low + 1;
    codes[half] = vuzp1q_u8(vreinterpretq_u8_u16(codes_at<kBits, kIndex>(low)),
                            vreinterpretq_u8_u16(codes_at<kBits, kIndex>(high)));
  }
  float* to = out + kIndex * kLanes;
  lookup.write(by_row ? codes[0] : vuzp1q_u8(codes[0], codes[1]), to);
  lookup.write(by_row ? codes[1] : vuzp2q_u8(codes[0], codes[1]), to + kRows);
}

template <int kBits>
void decoded_block(const std::byte* at, const float* table, bool by_row, float* out) {
  if constexpr (kBits > kMostLooked) {
    scalar_block<kBits>(at, table, by_row, out);
  } else {
    uint16x8_t words[4 * block_words(kBits)];
    std::memcpy(words, at, sizeof words);
    const Lookup<kBits> lookup(table);
    [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) {
      (write_code<kBits, kIndex>(words, lookup, by_row, out), ...);
    }(std::make_integer_sequence<int, block_codes(kBits)>{});
  }
}

void Lanes::block(int bits, const std::byte* at, const float* table, bool by_row, float* out) {
  switch (bits) {
    case 2:
      return decoded_block<2>(at, table, by_row, out);
    case 3:
      return decoded_block<3>(at, table, by_row, out);
    case 4:
      return decoded_block<4>(at, table, by_row, out);
    case 5:
      return decoded_block<5>(at, table, by_row, out);
    case 6:
      return decoded_block<6>(at, table, by_row, out);
    case 7:
      return decoded_block<7>(at, table, by_row, out);
    default:
      return decoded_block<8>(at, table, by_row, out);
  }
}

constexpr int kQuarters = kRows / 4;  // registers of the rows of a tile

template <int kT>
void rows_of(const float* values, const float* scale, const float* offset, const float* x,
             const float* sums, int inputs, float* y) {
  float32x4_t sum[kT][kQuarters];
  for (int t = 0; t < kT; ++t)
    for (int q = 0; q < kQuarters; ++q)
      sum[t][q] = sums ? vmulq_n_f32(vld1q_f32(offset + 4 * q), sums[t]) : vdupq_n_f32(0);
  for (int i = 0; i < inputs; ++i, values += kRows, x += kT)
    for (int q = 0; q < kQuarters; ++q) {
      const float32x4_t value = vld1q_f32(values + 4 * q);
      for (int t = 0; t < kT; ++t) sum[t][q] = vfmaq_n_f32(sum[t][q], value, x[t]);
    }
  for (int t = 0; t < kT; ++t)
    for (int q = 0; q < kQuarters; ++q) {
      float* to = y + t * kRows + 4 * q;
      vst1q_f32(to, vfmaq_f32(vld1q_f32(to), vld1q_f32(scale + 4 * q), sum[t][q]));
    }
}

void Lanes::rows(const float* values, const float* scale, const float* offset, const float* x,
                 const float* sums, int tokens, int inputs, float* y) {
  switch (tokens) {
    case 1:
      return rows_of<1>(values, scale, offset, x, sums, inputs, y);
    case 2:
      return rows_of<2>(values, scale, offset, x, sums, inputs, y);
    case 3:
      return rows_of<3>(values, scale, offset, x, sums, inputs, y);
    default:
      return rows_of<4>(values, scale, offset, x, sums, inputs, y);
  }
}

void Lanes::row(const float* values, float scale, const float* x, int width, int tokens, int inputs,
                float* y) {
  for (int t = 0; t < tokens; ++t, y += kRows, x += width) {
    float32x4_t sum[kQuarters] = {};
    for (int i = 0; i < inputs; i += kRows)
      for (int q = 0; q < kQuarters; ++q)
        sum[q] = vfmaq_f32(sum[q], vld1q_f32(values + i + 4 * q), vld1q_f32(x + i + 4 * q));
    for (int q = 0; q < kQuarters; ++q)
      vst1q_f32(y + 4 * q, vfmaq_n_f32(vld1q_f32(y + 4 * q), sum[q], scale));
  }
}

}  // namespace

const Kernels kNeon{Lanes::kTokens, 4, prepare, scratch_bytes, multiply};

}  // namespace whet::table
