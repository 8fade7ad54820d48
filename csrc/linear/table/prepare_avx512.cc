// Activations to bf16 with AVX-512, in the order in which the kernels of this tier read them.
#if defined(__GNUC__) && !defined(__clang__)  // of its own intrinsics (gcc bug 105593)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <cstring>

#include "linear/table/avx512.h"

namespace whet::table::WHET_AVX512 {
namespace {

constexpr int kChunk = 64;  // inputs that are rounded together

__mmask16 first_lanes(int count) {
  return count >= 16 ? 0xffff : count <= 0 ? 0 : static_cast<__mmask16>((1u << count) - 1);
}

// Sixteen activations at padded places `at`, `at + 1`, ...; zero where there is no input.
__m512 inputs_at(const Layout& l, const float* x, int at) {
  if (l.slot == l.group) return _mm512_maskz_loadu_ps(first_lanes(l.cols - at), x + at);
  float found[16];
  for (int i = 0; i < 16; ++i) {
    const int inside = (at + i) % l.slot, c = (at + i) / l.slot * l.group + inside;
    found[i] = inside < l.group && c < l.cols ? x[c] : 0.0f;
  }
  return _mm512_loadu_ps(found);
}

// Rounds one token's chunk.
void round_chunk(const Layout& l, const float* x, int at, std::uint32_t* out) {
  for (int i = 0; i < kChunk; i += 32) {
    _mm512_storeu_si512(out + i / 2,
                        to_bf16(inputs_at(l, x, at + i), inputs_at(l, x, at + i + 16)));
  }
}

float rounded_sum(const float* x, int count) {
  __m512 sum = _mm512_setzero_ps();
  for (int i = 0; i < count; i += 16) {
    const __m256i rounded = to_bf16(_mm512_maskz_loadu_ps(first_lanes(count - i), x + i));
    sum = _mm512_add_ps(
        sum, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16)));
  }
  return _mm512_reduce_add_ps(sum);
}

// Sums of the segments that begin in [first, last).
void sum_segments(const Layout& l, const float* x, int stride, int tokens, float* sums, int first,
                  int last) {
  for (int g = 0, segment = 0; g < l.groups; ++g)
    for (int from = 0; from < group_length(l, g); from += l.segment, ++segment) {
      const int at = g * l.slot + from, c = g * l.group + from;
      if (at < first || at >= last) continue;
      int count = l.group - from < l.cols - c ? l.group - from : l.cols - c;
      count = count < 0 ? 0 : count < l.segment ? count : l.segment;
      for (int t = 0; t < tokens; ++t)
        sums[static_cast<std::size_t>(segment) * tokens + t] =
            rounded_sum(x + static_cast<std::size_t>(t) * stride + c, count);
    }
}

}  // namespace

void prepare(const Layout& l, const float* x, int stride, int tokens, std::byte* input,
                    int first, int last) {
  auto* out = reinterpret_cast<std::uint32_t*>(input);
  const std::size_t pairs = l.width / 2;
  const bool by_token = l.form == Form::rowwise || tokens == 1;
  const Tiling tiles = tiling(tokens, kMostTokens);
  std::uint32_t chunk[kChunk / 2];
  for (int k = 0; k < tiles.count; ++k) {
    const int start = tile_start(tiles, k), count = tile_start(tiles, k + 1) - start;
    for (int at = first; at < last; at += kChunk)
      for (int t = start; t < start + count; ++t) {
        const float* from = x + static_cast<std::size_t>(t) * stride;
        if (by_token) {
          round_chunk(l, from, at, out + t * pairs + at / 2);
          continue;
        }
        round_chunk(l, from, at, chunk);
        std::uint32_t* to = out + start * pairs + static_cast<std::size_t>(at / 2) * count;
        for (int i = 0; i < kChunk / 2; ++i) to[i * count + t - start] = chunk[i];
      }
  }
  if (l.coding.affine)
    sum_segments(l, x, stride, tokens, reinterpret_cast<float*>(input + sums_offset(l, tokens, 2)),
                 first, last);
}

}  // namespace whet::table::WHET_AVX512
