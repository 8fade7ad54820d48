// Rounding of activations to int8 and int16, for the compiler to vectorize in each tier. Included
// inside an unnamed namespace.
//
// A step's scale is max|x| / 127, or of int16, whose halves reach ±(256·127 + 127), max|x| / 32639; a
// token's (int8-token of formats/activate.py) max|x| / 127.5, or fixed. A NaN or an infinity makes the
// scale one.

constexpr float kWide = 32639.0f;
constexpr float kLeast = 0x1p-100f;      // smaller numbers count as zeros
constexpr float kShifter = 12582912.0f;  // 1.5·2^23: adding it rounds to integers
constexpr int32_t kShifterBits = 0x4b400000;
constexpr float kZeros = 1.1920928955078125e-07f;  // stands in for the scale of zeros

// max|x|; magnitudes compare as integers, in which NaN is the greatest.
static inline float largest(const float* x, int count) {
  uint32_t most = 0;
  for (int i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, x + i, 4);
    bits &= 0x7fffffffu;
    most = bits > most ? bits : most;
  }
  float found;
  std::memcpy(&found, &most, 4);
  return found;
}

static inline int8_t rounded(float ratio) {
  ratio = ratio < -128.0f ? -128.0f : ratio;
  ratio = ratio > 127.0f ? 127.0f : ratio;
  const float shifted = ratio + kShifter;
  int32_t bits;
  std::memcpy(&bits, &shifted, 4);
  return static_cast<int8_t>(bits - kShifterBits);
}

// Rounds x·by, or x/by; returns the sum of the codes.
template <bool Divide>
static inline int32_t codes_of(const float* x, int count, float by, int8_t* codes) {
  for (int i = 0; i < count; ++i) codes[i] = rounded(Divide ? x[i] / by : x[i] * by);
  int32_t sum = 0;
  for (int i = 0; i < count; ++i) sum += codes[i];
  return sum;
}

// Writes a block's codes, a word a quad.
static inline void put_block(const int8_t* codes, int inputs, int together, int8_t* to) {
  if (together == 1) {
    std::memcpy(to, codes, static_cast<std::size_t>(inputs));
    return;
  }
  for (int i = 0; i < inputs; i += 4, to += 4 * together) std::memcpy(to, codes + i, 4);
}

// Rounds `count` inputs and fills up with zeros to `length`; returns the sum of the codes.
template <bool Divide>
static inline int32_t round_run(const float* x, int count, int length, float by, int together,
                                int8_t* to) {
  int32_t sum = 0;
  for (int done = 0; done < length; done += kBlock) {
    int8_t codes[kBlock] = {};
    const int inputs = std::min(kBlock, length - done), known = std::min(inputs, count - done);
    if (known == kBlock) {
      sum += codes_of<Divide>(x + done, kBlock, by, codes);
    } else if (known > 0) {
      sum += codes_of<Divide>(x + done, known, by, codes);
    }
    put_block(codes, inputs, together, to + static_cast<std::size_t>(done) * together);
  }
  return sum;
}

// Rounds x·by to int16; writes both halves.
static inline void halves_of(const float* x, int count, float by, int8_t* upper, int8_t* lower) {
  for (int i = 0; i < count; ++i) {
    const float shifted = x[i] * by + kShifter;
    int32_t bits;
    std::memcpy(&bits, &shifted, 4);
    const uint32_t code = static_cast<uint32_t>(bits) - kShifterBits;
    upper[i] = static_cast<int8_t>((code + 128) >> 8);
    lower[i] = static_cast<int8_t>(code);
  }
}

// Rounds a step to int16, fills it up with zeros, and writes its halves.
static inline void round_halves(const Rounding& rounding, const float* x, const Place& place,
                                int step) {
  const int begin = step * rounding.step, count = std::min(rounding.step, rounding.cols - begin);
  const std::size_t number = static_cast<std::size_t>(step) * place.together;
  const float most = largest(x + begin, count);
  const float by = most < kLeast ? 0.0f : kWide / most;
  int32_t sum = 0;
  for (int done = 0; done < rounding.step; done += kBlock) {
    int8_t upper[kBlock] = {}, lower[kBlock] = {};
    const int inputs = std::min(kBlock, rounding.step - done);
    halves_of(x + begin + done, std::min(inputs, count - done), by, upper, lower);
    for (int i = 0; i < kBlock; ++i) sum += 256 * upper[i] + lower[i];
    int8_t* to = place.codes + static_cast<std::size_t>(begin + done) * place.together;
    put_block(upper, inputs, place.together, to);
    put_block(lower, inputs, place.together, to + 4);
  }
  const float scale = most < kLeast ? 0.0f : most / kWide;
  place.scales[number] = place.scales[number + 1] = scale;
  place.sums[number] = 0;
  place.sums[number + 1] = -sum;
}

// The scale of a token, or 0 where each step has its own.
static inline float token_scale(const Rounding& rounding, const float* x) {
  if (!rounding.token || rounding.fixed != 0) return rounding.fixed;
  const float scale = largest(x, rounding.cols) / 127.5f;
  return scale == 0 ? kZeros : scale;
}

void prepare(const Rounding& rounding, const float* x, const Place& place, int first, int last) {
  if (rounding.halves == 2) {
    for (int step = first; step < last; ++step) round_halves(rounding, x, place, step);
    return;
  }
  const float token = token_scale(rounding, x);
  for (int step = first; step < last; ++step) {
    const int begin = step * rounding.step, length = rounding.step;
    const int count = std::min(length, rounding.cols - begin);
    const std::size_t number = static_cast<std::size_t>(step) * place.together;
    int8_t* to = place.codes + static_cast<std::size_t>(begin) * place.together;
    float scale = token, by = token;
    if (!rounding.token) {
      const float most = count == kBlock ? largest(x + begin, kBlock) : largest(x + begin, count);
      scale = most < kLeast ? 0.0f : most / 127.0f;
      by = most < kLeast ? 0.0f : 127.0f / most;
    }
    const int32_t sum = rounding.token
                            ? round_run<true>(x + begin, count, length, by, place.together, to)
                            : round_run<false>(x + begin, count, length, by, place.together, to);
    place.scales[number] = scale;
    place.sums[number] = -sum;
  }
}
