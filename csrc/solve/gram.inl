// The statistics' kernels, compiled once for each tier.
#pragma once

#include <algorithm>
#include <cmath>

#include "solve/gram.h"

namespace whet {
namespace {

inline constexpr float kSteps = 127.0f;  // on either side of zero

// What is rounded: a channel's number at a token.
struct Source {
  const float* x;
  const float* minus;
  std::size_t width;
  float at(int token, int channel) const {
    const std::size_t place =
        static_cast<std::size_t>(token) * width + static_cast<std::size_t>(channel);
    return minus == nullptr ? x[place] : x[place] - minus[place];
  }
};

// Lanes in whose order a channel's squares are added up: four neighbouring tokens, then these sums.
inline float squares(const Source& from, int tokens, int channel) {
  float part[kQuad] = {};
  for (int token = 0; token < tokens; ++token) {
    const float value = from.at(token, channel);
    part[token % kQuad] += value * value;
  }
  return (part[0] + part[1]) + (part[2] + part[3]);
}

inline float step_of(const Source& from, int tokens, int channel) {
  float most = 0x1p-126f;
  for (int token = 0; token < tokens; ++token) {
    most = std::max(most, std::fabs(from.at(token, channel)));
  }
  return most / kSteps;
}

#if defined(__AVX512VNNI__)

inline constexpr int kColumns = kCodesPanel / 16;  // vectors of a panel

// Some of the sixteen channels from `channel` on; zero beyond the last.
inline __m512 taken(const Source& from, int token, int channel, __mmask16 some) {
  const std::size_t place =
      static_cast<std::size_t>(token) * from.width + static_cast<std::size_t>(channel);
  const __m512 x = _mm512_maskz_loadu_ps(some, from.x + place);
  if (from.minus == nullptr) return x;
  return _mm512_sub_ps(x, _mm512_maskz_loadu_ps(some, from.minus + place));
}

// Which channels of the vector from `channel` on there are.
inline __mmask16 there(int channel, int channels) {
  return static_cast<__mmask16>((1 << std::clamp(channels - channel, 0, 16)) - 1);
}

// Steps of a panel's channels, and the sums of their squares.
void measure(const Source& from, Codes& into, int first) {
  __m512 most[kColumns], part[kColumns][kQuad];
#pragma GCC unroll 4
  for (int v = 0; v < kColumns; ++v) {
    most[v] = _mm512_set1_ps(0x1p-126f);
#pragma GCC unroll 4
    for (int k = 0; k < kQuad; ++k) part[v][k] = _mm512_setzero_ps();
  }
  for (int quad = 0; quad < into.quads(); ++quad) {
#pragma GCC unroll 4
    for (int k = 0; k < kQuad; ++k) {
      const int token = quad * kQuad + k;
      const bool real = token < into.tokens;
#pragma GCC unroll 4
      for (int v = 0; v < kColumns; ++v) {
        const int channel = first + 16 * v;
        const __mmask16 some = real ? there(channel, into.channels) : __mmask16{0};
        const __m512 x = taken(from, real ? token : 0, channel, some);
        most[v] = _mm512_max_ps(most[v], _mm512_abs_ps(x));
        part[v][k] = _mm512_add_ps(part[v][k], _mm512_mul_ps(x, x));
      }
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kColumns; ++v) {
    const __m512 whole = _mm512_add_ps(_mm512_add_ps(part[v][0], part[v][1]),
                                       _mm512_add_ps(part[v][2], part[v][3]));
    _mm512_storeu_ps(into.energy() + first + 16 * v, whole);
    _mm512_storeu_ps(into.scale() + first + 16 * v,
                     _mm512_div_ps(most[v], _mm512_set1_ps(kSteps)));
  }
}

void encode_panel(const float* x, const float* minus, Codes& into, int panel) {
  const Source from{x, minus, static_cast<std::size_t>(into.channels)};
  const int first = panel * kCodesPanel;
  measure(from, into, first);
  int8_t* to = into.panel(panel);
  for (int quad = 0; quad < into.quads(); ++quad) {
#pragma GCC unroll 4
    for (int v = 0; v < kColumns; ++v) {
      const int channel = first + 16 * v;
      const __m512 step = _mm512_loadu_ps(into.scale() + channel);
      __m512i packed = _mm512_setzero_si512(), sum = _mm512_loadu_si512(into.sum() + channel);
      for (int k = 0; k < kQuad && quad * kQuad + k < into.tokens; ++k) {
        const __m512 value = taken(from, quad * kQuad + k, channel, there(channel, into.channels));
        const __m512i code = _mm512_cvtps_epi32(_mm512_div_ps(value, step));
        sum = _mm512_add_epi32(sum, code);
        const __m512i byte = _mm512_and_si512(code, _mm512_set1_epi32(255));
        packed = _mm512_or_si512(packed, _mm512_slli_epi32(byte, static_cast<unsigned>(8 * k)));
      }
      _mm512_storeu_si512(into.sum() + channel, sum);
      _mm512_storeu_si512(to + 64 * v, packed);
    }
    to += kCodesPanel * kQuad;
  }
}

inline constexpr int kBlock = 64;  // quads of both panels, and the sums, that stay in the first cache

// Some channels of the left panel with all of the right one, whose codes are made positive.
template <int Rows>
void multiply_rows(const int8_t* left, const int8_t* right, int quads, int32_t* products) {
  __m512i sum[Rows][kColumns];
#pragma GCC unroll 6
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 6
    for (int v = 0; v < kColumns; ++v) {
      sum[r][v] = _mm512_loadu_si512(products + r * kCodesPanel + v * 16);
    }
  }
  const __m512i flip = _mm512_set1_epi32(static_cast<int>(0x80808080));
  for (int quad = 0; quad < quads; ++quad) {
    __m512i y[kColumns];
#pragma GCC unroll 6
    for (int v = 0; v < kColumns; ++v) {
      y[v] = _mm512_xor_si512(_mm512_loadu_si512(right + v * 64), flip);
    }
#pragma GCC unroll 6
    for (int r = 0; r < Rows; ++r) {
      int32_t four;
      std::memcpy(&four, left + r * kQuad, sizeof four);
      const __m512i x = _mm512_set1_epi32(four);
#pragma GCC unroll 6
      for (int v = 0; v < kColumns; ++v) sum[r][v] = _mm512_dpbusd_epi32(sum[r][v], y[v], x);
    }
    left += kCodesPanel * kQuad;
    right += kCodesPanel * kQuad;
  }
#pragma GCC unroll 6
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 6
    for (int v = 0; v < kColumns; ++v) {
      _mm512_storeu_si512(products + r * kCodesPanel + v * 16, sum[r][v]);
    }
  }
}

void multiply_panels(const Codes& left, int i, const Codes& right, int j, int32_t* products) {
  constexpr int kRows = 6, kLast = kCodesPanel / kRows * kRows;
  const int32_t* const sums = left.sum() + i * kCodesPanel;
  for (int r = 0; r < kCodesPanel; ++r) {
    std::fill_n(products + r * kCodesPanel, kCodesPanel, -128 * sums[r]);
  }
  for (int first = 0; first < left.quads(); first += kBlock) {
    const int quads = std::min(kBlock, left.quads() - first);
    const int8_t* const x = left.panel(i) + first * kCodesPanel * kQuad;
    const int8_t* const y = right.panel(j) + first * kCodesPanel * kQuad;
    for (int r = 0; r < kLast; r += kRows) {
      multiply_rows<kRows>(x + r * kQuad, y, quads, products + r * kCodesPanel);
    }
    multiply_rows<kCodesPanel - kLast>(x + kLast * kQuad, y, quads,
                                       products + kLast * kCodesPanel);
  }
}

#else

void encode_panel(const float* x, const float* minus, Codes& into, int panel) {
  const Source from{x, minus, static_cast<std::size_t>(into.channels)};
  const int first = panel * kCodesPanel;
  for (int lane = 0; lane < kCodesPanel && first + lane < into.channels; ++lane) {
    const int channel = first + lane;
    const float step = into.scale()[channel] = step_of(from, into.tokens, channel);
    into.energy()[channel] = squares(from, into.tokens, channel);
    int32_t sum = 0;
    for (int token = 0; token < into.tokens; ++token) {
      const auto code = static_cast<int8_t>(std::nearbyint(from.at(token, channel) / step));
      into.panel(panel)[(token / kQuad * kCodesPanel + lane) * kQuad + token % kQuad] = code;
      sum += code;
    }
    into.sum()[channel] = sum;
  }
}

void multiply_panels(const Codes& left, int i, const Codes& right, int j, int32_t* products) {
  std::fill_n(products, kCodesPanel * kCodesPanel, 0);
  const int8_t *x = left.panel(i), *y = right.panel(j);
  for (int quad = 0; quad < left.quads(); ++quad) {
    for (int r = 0; r < kCodesPanel; ++r) {
      for (int c = 0; c < kCodesPanel; ++c) {
        int32_t sum = 0;
        for (int k = 0; k < kQuad; ++k) sum += x[r * kQuad + k] * y[c * kQuad + k];
        products[r * kCodesPanel + c] += sum;
      }
    }
    x += kCodesPanel * kQuad;
    y += kCodesPanel * kQuad;
  }
}

#endif

const Grammar kGrammar = {&encode_panel, &multiply_panels};

}  // namespace
}  // namespace whet
