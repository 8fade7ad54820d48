// Integer weights times int8 activations by NEON, with the dot product instruction or without it.
// Included inside an unnamed namespace by a translation unit for each.
//
// Codes are multiplied as signed bytes: those of 8 bits less 128, and so are then their zero points.
// Without the instruction products are added in 16 bits, and only as many as fit: of codes of 4 bits
// eight pairs (8·2·15·128 < 2^15), of 5 four, of 6 two, of 7 one; of 8 none.

constexpr int kTogether = 4;  // tokens of one pass over a tile
constexpr int kPart = 16;     // bytes of a quad of four rows

// What the signed bytes that stand for codes are less by than them.
constexpr int below(int coding) { return value_width(coding) == 8 ? 128 : 0; }

// The levels of mapped codes as signed bytes; any bytes where codes are not.
template <int Coding>
static inline uint8x16_t level_table(const Weight& weight) {
  if constexpr (!is_mapped(Coding)) return vdupq_n_u8(0);
  return veorq_u8(vld1q_u8(weight.levels), vdupq_n_u8(128));
}

// Parts of a tile that one pass takes: all for one token, else two, for want of registers.
constexpr int parts_of(int tokens) { return tokens == 1 ? 4 : 2; }

// Four bytes as numbers.
static inline uint32x4_t four_bytes(const uint8_t* at) {
  uint32_t word;
  std::memcpy(&word, at, sizeof word);
  return vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(word)))));
}

static inline float32x4_t read_scales(const uint8_t* at, Scale kind, int part) {
  switch (kind) {
    case Scale::bf16:
      return vreinterpretq_f32_u32(vshll_n_u16(loaded<uint16x4_t>(at + part * 8), 16));
    case Scale::f16:
      return vcvt_f32_f16(vreinterpret_f16_u16(loaded<uint16x4_t>(at + part * 8)));
    case Scale::f32:
      return loaded<float32x4_t>(at + part * 16);
    default:  // an exponent; that of zero is 2^-127
      return vreinterpretq_f32_u32(
          vmaxq_u32(vshlq_n_u32(four_bytes(at + part * 4), 23), vdupq_n_u32(0x00400000)));
  }
}

static inline int32x4_t read_zeros(const uint8_t* at, int part) {
  return vreinterpretq_s32_u32(four_bytes(at + part * 4));
}

#if defined(__ARM_FEATURE_DOTPROD)
template <int Bits, int Quads, int Tokens, int Quad, int Token>
static inline void add_product(const int8x16_t* codes, const int8x16_t* x, int16x8_t (*)[2],
                               int32x4_t* sums) {
  constexpr int word = Quad * Tokens + Token;
  sums[Token] = vdotq_laneq_s32(sums[Token], codes[Quad], x[word / 4], word % 4);
}
#else
// How many quads' products may be added in 16 bits.
constexpr int safe_quads(int bits) { return bits <= 4 ? 8 : bits == 5 ? 4 : bits == 6 ? 2 : 1; }

// `pairs`: for each token the products that are not in its sums yet, of two rows and two rows.
template <int Bits, int Quads, int Tokens, int Quad, int Token>
static inline void add_product(const int8x16_t* codes, const int8x16_t* x, int16x8_t (*pairs)[2],
                               int32x4_t* sums) {
  constexpr int word = Quad * Tokens + Token, safe = safe_quads(value_width(Bits));
  const int8x16_t four =
      vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(x[word / 4]), word % 4));
  int16x8_t* own = pairs[Token];
  if constexpr (Quad % safe == 0) {
    own[0] = vmull_s8(vget_low_s8(codes[Quad]), vget_low_s8(four));
    own[1] = vmull_high_s8(codes[Quad], four);
  } else {
    own[0] = vmlal_s8(own[0], vget_low_s8(codes[Quad]), vget_low_s8(four));
    own[1] = vmlal_high_s8(own[1], codes[Quad], four);
  }
  if constexpr (value_width(Bits) == 8) {
    const int32x4_t fours = vpaddq_s32(vpaddlq_s16(own[0]), vpaddlq_s16(own[1]));
    sums[Token] = vaddq_s32(sums[Token], fours);
  } else if constexpr (Quad % safe == safe - 1 || Quad == Quads - 1) {
    sums[Token] = vpadalq_s16(sums[Token], vpaddq_s16(own[0], own[1]));
  }
}
#endif

// Adds the products of a block of four rows and the inputs of all tokens.
template <int Bits, int Quads, int Tokens>
static inline void add_products(const uint8_t* at, uint8x16_t levels, const int8x16_t* x,
                                int32x4_t* sums) {
  uint8x16_t unsigned_codes[Quads];
  int8x16_t codes[Quads];
  int16x8_t pairs[Tokens][2];
  unpack<Bits, Quads>(at, unsigned_codes);
  for (int q = 0; q < Quads; ++q) {
    codes[q] = vreinterpretq_s8_u8(is_mapped(Bits)
                                       ? vqtbl1q_u8(levels, unsigned_codes[q])
                                       : veorq_u8(unsigned_codes[q], vdupq_n_u8(below(Bits))));
  }
  [&]<int... I>(std::integer_sequence<int, I...>) {
    (add_product<Bits, Quads, Tokens, I / Tokens, I % Tokens>(codes, x, pairs, sums), ...);
  }(std::make_integer_sequence<int, Quads * Tokens>{});
}

// The same of the rows of one pass. What is read behind the inputs of a short block is not used.
template <int Bits, int Quads, int Tokens>
static inline void add_block(const uint8_t* at, uint8x16_t levels, const int8_t* x,
                             int32x4_t (*sums)[Tokens]) {
  constexpr int kWords = (Quads * Tokens + 3) / 4, kParts = parts_of(Tokens);
  int8x16_t inputs[kWords];
  for (int i = 0; i < kWords; ++i) inputs[i] = vld1q_s8(x + 16 * i);
#pragma GCC unroll 4
  for (int part = 0; part < kParts; ++part) {
    add_products<Bits, Quads, Tokens>(at + part * kPart, levels, inputs, sums[part]);
  }
}

template <int Bits, int Tokens, int Quads = kQuads - 1>
static inline void add_rest(int quads, const uint8_t* at, uint8x16_t levels, const int8_t* x,
                            int32x4_t (*sums)[Tokens]) {
  if constexpr (Quads > 0) {
    if (quads == Quads) return add_block<Bits, Quads, Tokens>(at, levels, x, sums);
    add_rest<Bits, Tokens, Quads - 1>(quads, at, levels, x, sums);
  }
}

// Sums of some rows, of which `part` holds the first four. `Short`: a step is one full block.
template <int Bits, bool Short, int Tokens>
void part_sums(const Weight& weight, const uint8_t* at, int part, Batch batch, int halves,
               float* y) {
  constexpr int kBytes = block_bytes(Bits, kQuads), kParts = parts_of(Tokens);
  const int blocks = Short ? 1 : weight.step / kBlock;
  const int rest = Short ? 0 : weight.step % kBlock / 4;
  const int rest_bytes = weight.step_bytes - blocks * kBytes;
  float32x4_t total[kParts][Tokens] = {}, scales[kParts] = {}, minima[kParts] = {};
  const uint8x16_t levels = level_table<Bits>(weight);
  int32x4_t zeros[kParts];
  for (int p = 0; p < kParts; ++p) zeros[p] = vdupq_n_s32(weight.half() - below(Bits));
  for (int step = 0, next = 0; step < weight.steps; ++step) {
    if (step == next) {
      for (int p = 0; p < kParts; ++p) {
        scales[p] = vmulq_n_f32(read_scales(at, weight.scale, part + p), weight.unit);
        if (weight.minimum) {
          minima[p] = read_scales(at + kRows * weight.scale_bytes, weight.scale, part + p);
        }
        if (!weight.affine) continue;
        zeros[p] = read_zeros(at + kRows * weight.scale_bytes, part + p) - below(Bits);
      }
      at += weight.head;
      next += weight.group;
    }
    int32x4_t sums[kParts][Tokens];
#pragma GCC unroll 4
    for (int p = 0; p < kParts; ++p) {
      for (int t = 0; t < Tokens; ++t) sums[p][t] = vmulq_n_s32(zeros[p], batch.sums[t]);
    }
    for (int block = 0; block < blocks; ++block, at += kBytes, batch.x += kBlock * Tokens) {
      add_block<Bits, kQuads, Tokens>(at + part * kPart, levels, batch.x, sums);
    }
    if (rest != 0) {
      add_rest<Bits, Tokens>(rest, at + part * kPart, levels, batch.x, sums);
      at += rest_bytes;
      batch.x += rest * 4 * Tokens;
    }
#pragma GCC unroll 4
    for (int p = 0; p < kParts; ++p) {
      for (int t = halves - 1; t < Tokens; t += halves) {
        if (halves == 2) sums[p][t] = vaddq_s32(vshlq_n_s32(sums[p][t - 1], 8), sums[p][t]);
        const float32x4_t factor = vmulq_n_f32(scales[p], batch.scales[t]);
        total[p][t] = vfmaq_f32(total[p][t], vcvtq_f32_s32(sums[p][t]), factor);
        if (!weight.minimum) continue;
        const float sum = batch.scales[t] * static_cast<float>(-batch.sums[t]);
        total[p][t] = vfmaq_n_f32(total[p][t], minima[p], sum);
      }
    }
    batch.scales += Tokens;
    batch.sums += Tokens;
  }
#pragma GCC unroll 4
  for (int p = 0; p < kParts; ++p) {
#pragma GCC unroll 4
    for (int t = 0; t < Tokens; ++t) vst1q_f32(y + t * kRows + p * 4, total[p][t]);
  }
}

using PartSums = void (*)(const Weight&, const uint8_t*, int, Batch, int, float*);

template <int Bits, bool Short, int... Counts>
PartSums pick(int tokens, std::integer_sequence<int, Counts...>) {
  static constexpr PartSums found[] = {part_sums<Bits, Short, Counts + 1>...};
  return found[tokens - 1];
}

template <int Bits>
PartSums part_sums_of(const Weight& weight, int tokens) {
  using Counts = std::make_integer_sequence<int, kTogether>;
  return weight.step == kBlock ? pick<Bits, true>(tokens, Counts{})
                               : pick<Bits, false>(tokens, Counts{});
}

PartSums part_sums_of(const Weight& weight, int tokens) {
  switch (weight.coding) {
    case 2:
      return part_sums_of<2>(weight, tokens);
    case 3:
      return part_sums_of<3>(weight, tokens);
    case 4:
      return part_sums_of<4>(weight, tokens);
    case 5:
      return part_sums_of<5>(weight, tokens);
    case 6:
      return part_sums_of<6>(weight, tokens);
    case 7:
      return part_sums_of<7>(weight, tokens);
    case 2 + kMapped:
      return part_sums_of<2 + kMapped>(weight, tokens);
    case 3 + kMapped:
      return part_sums_of<3 + kMapped>(weight, tokens);
    case 4 + kMapped:
      return part_sums_of<4 + kMapped>(weight, tokens);
    default:
      return part_sums_of<8>(weight, tokens);
  }
}

int together(int count, int halves) { return evenly(count, kTogether, halves); }

void multiply(const Weight& weight, const Input& input, int halves, const Output& out, std::byte*,
              int first, int last) {
  const int most = together(halves, out.halves);
  for (int tile = first; tile < last; ++tile) {
    const uint8_t* at = weight.tiles + tile * weight.tile_bytes;
    const int rows = std::min(kRows, weight.rows - tile * kRows);
    for (int begin = 0; begin < halves; begin += most) {
      const int count = std::min(most, halves - begin);
      const PartSums part_sums = part_sums_of(weight, count);
      float sums[kTogether * kRows];
      for (int part = 0; part * 4 < rows; part += parts_of(count)) {
        part_sums(weight, at, part, batch_of(input, begin), out.halves, sums + part * 4);
      }
      for (int t = 0; t < count; t += out.halves) {
        const int token = (begin + t) / out.halves;
        float* y = out.y + static_cast<std::size_t>(token) * out.stride + tile * kRows;
        const float* own = sums + (t + out.halves - 1) * kRows;
        for (int r = 0; r < rows; ++r) y[r] = out.accumulate ? y[r] + own[r] : own[r];
      }
    }
  }
}

std::size_t scratch(const Weight&, int) { return 0; }
