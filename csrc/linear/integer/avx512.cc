// Integer weights times int8 activations by AVX-512 VNNI: vpdpbusd multiplies codes (unsigned) by
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

// Rounds a step of 16 or 32 inputs with a scale of its own.
template <int Inputs>
static inline void prepare_step(const float* x, const Place& place, int step) {
  const std::size_t number = static_cast<std::size_t>(step) * place.together;
  const __m512 low = _mm512_loadu_ps(x);
  const __m512 high = Inputs == 32 ? _mm512_loadu_ps(x + 16) : _mm512_setzero_ps();
  const float most = std::bit_cast<float>(
      _mm512_reduce_max_epu32(_mm512_max_epu32(magnitude(low), magnitude(high))));
  const __m512 by = _mm512_set1_ps(most < kLeast ? 0.0f : 127.0f / most);
  const __m256i codes = _mm256_set_m128i(codes_of(high, by), codes_of(low, by));
  const __m256i eight = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), codes);
  const __m128i four =
      _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  place.sums[number] = -_mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
  place.scales[number] = most < kLeast ? 0.0f : most / 127.0f;
  put_words<Inputs / 4>(codes, place.together, place.codes + number * Inputs);
}

// Steps of the usual lengths by instructions, the rest as everywhere.
void prepare_steps(const Rounding& rounding, const float* x, const Place& place, int first,
                   int last) {
  const bool usual = !rounding.token && (rounding.step == 16 || rounding.step == 32);
  const int whole = usual ? std::min(last, rounding.cols / rounding.step) : first;
  for (int step = first; step < whole; ++step) {
    if (rounding.step == 32) {
      prepare_step<32>(x + step * 32, place, step);
    } else {
      prepare_step<16>(x + step * 16, place, step);
    }
  }
  prepare(rounding, x, place, std::max(first, whole), last);
}

void multiply(const Weight& weight, const Input& input, int tokens, const Output& out,
              std::byte* memory, int first, int last) {
  if (tokens <= kFew) {
    multiply_few_avx512(weight, input, tokens, out, first, last);
  } else {
    multiply_many_avx512(weight, input, tokens, out, memory, first, last);
  }
}

}  // namespace

// Batches are as even as can be: eight tokens among many would be two times four.
int together_avx512(int tokens) {
  const int most = tokens <= kFew ? kFewTogether : kManyTogether;
  const int batches = (tokens + most - 1) / most;
  return (tokens + batches - 1) / batches;
}

const Routines kAvx512 = {prepare_steps, together_avx512, multiply, scratch_avx512, 2};

}  // namespace whet::integer
