// Integer weights times activations by AVX-512 VNNI: vpdpbusd multiplies codes (unsigned) by
// activations (signed), four inputs of a row at a time.
#include "linear/integer/avx512.h"

#include <bit>

namespace whet::integer {
namespace {

#include "linear/integer/prepare.inl"

// Writes words of codes, `together` words apart.
template <int Quads>
static inline void put_words(__m256i codes, int together, int8_t* to) {
  const __m256i places =
      _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(together));
  constexpr __mmask8 kept = (1 << Quads) - 1;
  if (together != 1) {
    _mm256_mask_i32scatter_epi32(to, kept, places, codes, 4);
  } else {
    _mm256_mask_storeu_epi32(to, kept, codes);
  }
}

static inline __m512i magnitude(__m512 x) {
  return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
}

static inline __m128i codes_of(__m512 x, __m512 by) {
  return _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(x, by)));
}

// The sum of 32 codes.
static inline int32_t sum_of(__m256i codes) {
  const __m256i eight = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), codes);
  const __m128i four =
      _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

// Writes the codes of a step of one half, their scale and the negated sum.
template <int Inputs>
static inline void put_step(__m256i codes, float scale, int32_t sum, const Place& place, int step,
                            int half) {
  const std::size_t number = static_cast<std::size_t>(step) * place.together;
  place.sums[number + half] = sum;
  place.scales[number + half] = scale;
  put_words<Inputs / 4>(codes, place.together, place.codes + number * Inputs + 4 * half);
}

// Rounds a step of 16 or 32 inputs with a scale of its own.
template <int Inputs>
static inline void prepare_step(const float* x, const Place& place, int step) {
  const __m512 low = _mm512_loadu_ps(x);
  const __m512 high = Inputs == 32 ? _mm512_loadu_ps(x + 16) : _mm512_setzero_ps();
  const float most = std::bit_cast<float>(
      _mm512_reduce_max_epu32(_mm512_max_epu32(magnitude(low), magnitude(high))));
  const __m512 by = _mm512_set1_ps(most < kLeast ? 0.0f : 127.0f / most);
  const __m256i codes = _mm256_set_m128i(codes_of(high, by), codes_of(low, by));
  put_step<Inputs>(codes, most < kLeast ? 0.0f : most / 127.0f, -sum_of(codes), place, step, 0);
}

// Rounds a step of 16 or 32 inputs to int16, and writes its halves.
template <int Inputs>
static inline void prepare_halves(const float* x, const Place& place, int step) {
  const __m512 front = _mm512_loadu_ps(x);
  const __m512 back = Inputs == 32 ? _mm512_loadu_ps(x + 16) : _mm512_setzero_ps();
  const float most = std::bit_cast<float>(
      _mm512_reduce_max_epu32(_mm512_max_epu32(magnitude(front), magnitude(back))));
  const float scale = most < kLeast ? 0.0f : most / kWide;
  const __m512 by = _mm512_set1_ps(most < kLeast ? 0.0f : kWide / most);
  const __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(front, by));
  const __m512i b = _mm512_cvtps_epi32(_mm512_mul_ps(back, by));
  const __m512i half = _mm512_set1_epi32(128);
  const __m128i upper_a = _mm512_cvtepi32_epi8(_mm512_srai_epi32(_mm512_add_epi32(a, half), 8));
  const __m128i upper_b = _mm512_cvtepi32_epi8(_mm512_srai_epi32(_mm512_add_epi32(b, half), 8));
  put_step<Inputs>(_mm256_set_m128i(upper_b, upper_a), scale, 0, place, step, 0);
  const __m256i lower = _mm256_set_m128i(_mm512_cvtepi32_epi8(b), _mm512_cvtepi32_epi8(a));
  const int32_t sum = _mm512_reduce_add_epi32(_mm512_add_epi32(a, b));
  put_step<Inputs>(lower, scale, -sum, place, step, 1);
}

// Steps of the usual lengths by instructions, the rest as everywhere.
void prepare_steps(const Rounding& rounding, const float* x, const Place& place, int first,
                   int last) {
  const bool usual = !rounding.token && (rounding.step == 16 || rounding.step == 32);
  const int whole = usual ? std::min(last, rounding.cols / rounding.step) : first;
  for (int step = first; step < whole; ++step) {
    const float* from = x + step * rounding.step;
    if (rounding.step == 32) {
      rounding.halves == 2 ? prepare_halves<32>(from, place, step)
                           : prepare_step<32>(from, place, step);
    } else {
      rounding.halves == 2 ? prepare_halves<16>(from, place, step)
                           : prepare_step<16>(from, place, step);
    }
  }
  prepare(rounding, x, place, std::max(first, whole), last);
}

void multiply(const Weight& weight, const Input& input, int halves, const Output& out,
              std::byte* memory, int first, int last) {
  if (halves <= kFew) {
    multiply_few_avx512(weight, input, halves, out, first, last);
  } else {
    multiply_many_avx512(weight, input, halves, out, memory, first, last);
  }
}

}  // namespace

int together_avx512(int count, int halves) {
  return evenly(count, count <= kFew || halves == 2 ? kFewTogether : kManyTogether, halves);
}

const Routines kAvx512 = {prepare_steps, together_avx512, multiply, scratch_avx512, 2};

}  // namespace whet::integer
