// The row operators of one tier; included by a translation unit with that tier's flags.
#include <cmath>

#include "base/half.h"
#include "ops/rows.h"
#include "ops/vector.h"

namespace whet {
namespace {

// Applies `f` to vectors of the row, and to what is left over at its end as a filled vector.
template <class F>
inline void map(int width, float* out, F&& f) {
  int i = 0;
  for (; i + kLanes <= width; i += kLanes) store(out + i, f([i](const float* x) { return load(x + i); }));
  if (i < width) {
    const int rest = width - i;
    store_some(out + i, f([i, rest](const float* x) { return load_some(x + i, rest); }), rest);
  }
}

template <class F>
inline float reduce(int width, F&& f) {
  Vector sums[4] = {};
  int i = 0;
  for (; i + 4 * kLanes <= width; i += 4 * kLanes)
    for (int k = 0; k < 4; ++k) {
      const int at = i + k * kLanes;
      sums[k] += f([at](const float* x) { return load(x + at); }, at, kLanes);
    }
  for (; i < width; i += kLanes) {
    const int rest = width - i < kLanes ? width - i : kLanes;
    sums[0] += f([i, rest](const float* x) { return load_some(x + i, rest); }, i, rest);
  }
  return total((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

void rms(const float* x, const float* gain, float eps, int width, float* out) {
  const float square = reduce(width, [x](auto at, int, int) {
    const Vector v = at(x);
    return v * v;
  });
  const float inverse = 1.0f / std::sqrt(square / static_cast<float>(width) + eps);
  if (gain == nullptr)
    map(width, out, [=](auto at) { return at(x) * inverse; });
  else
    map(width, out, [=](auto at) { return at(x) * inverse * at(gain); });
}

void layer(const float* x, const float* gain, const float* bias, float eps, int width, float* out) {
  const float mean = reduce(width, [x](auto at, int, int) { return at(x); }) / static_cast<float>(width);
  const float square = reduce(width, [x, mean](auto at, int, int count) {
    Vector v = at(x) - mean;
    for (int i = count; i < kLanes; ++i) v[i] = 0.0f;
    return v * v;
  });
  const float inverse = 1.0f / std::sqrt(square / static_cast<float>(width) + eps);
  map(width, out, [=](auto at) {
    Vector v = (at(x) - mean) * inverse;
    if (gain != nullptr) v = v * at(gain);
    if (bias != nullptr) v = v + at(bias);
    return v;
  });
}

void add(const float* a, const float* b, int width, float* out) {
  map(width, out, [=](auto at) { return at(a) + at(b); });
}

void scale(const float* x, float factor, int width, float* out) {
  map(width, out, [=](auto at) { return at(x) * factor; });
}

void cap(const float* x, float limit, int width, float* out) {
  map(width, out, [=](auto at) { return limit * tangent(at(x) / limit); });
}

void add_scaled(const float* x, float factor, int width, float* out) {
  map(width, out, [=](auto at) { return at(out) + factor * at(x); });
}

inline Vector silu(Vector x) { return x / (1.0f + exponential(-x)); }
inline Vector gelu(Vector x) { return 0.5f * x * (1.0f + error_function(x * 0.70710678f)); }
inline Vector gelu_tanh(Vector x) {
  return 0.5f * x * (1.0f + tangent(0.79788456f * (x + 0.044715f * x * x * x)));
}
inline Vector relu(Vector x) { return larger(x, Vector{}); }

// Calls `f` with the function of a nonlinearity.
template <class F>
inline void chosen(Nonlinearity kind, F&& f) {
  switch (kind) {
    case Nonlinearity::silu: return f([](Vector x) { return silu(x); });
    case Nonlinearity::gelu: return f([](Vector x) { return gelu(x); });
    case Nonlinearity::gelu_tanh: return f([](Vector x) { return gelu_tanh(x); });
    case Nonlinearity::relu: return f([](Vector x) { return relu(x); });
  }
}

void activate(Nonlinearity kind, const float* x, int width, float* out) {
  chosen(kind, [=](auto act) { map(width, out, [=](auto at) { return act(at(x)); }); });
}

void gate(Nonlinearity kind, const float* gate, const float* up, int width, float* out) {
  chosen(kind, [=](auto act) { map(width, out, [=](auto at) { return act(at(gate)) * at(up); }); });
}

void turn(const float* cosine, const float* sine, int pairs, float* head) {
  float* const first = head;
  float* const second = head + pairs;
  int i = 0;
  for (; i + kLanes <= pairs; i += kLanes) {
    const Vector a = load(first + i), b = load(second + i), c = load(cosine + i), s = load(sine + i);
    store(first + i, a * c - b * s);
    store(second + i, b * c + a * s);
  }
  for (; i < pairs; ++i) {
    const float a = first[i], b = second[i];
    first[i] = a * cosine[i] - b * sine[i];
    second[i] = b * cosine[i] + a * sine[i];
  }
}

void widen(Number from, const void* x, int width, float* out) {
  if (from == Number::f32) {
    std::memcpy(out, x, sizeof(float) * static_cast<size_t>(width));
    return;
  }
  const auto* half = static_cast<const uint16_t*>(x);
  for (int i = 0; i < width; ++i) out[i] = from == Number::bf16 ? bf16_to_f32(half[i]) : f16_to_f32(half[i]);
}

float dot(const float* a, const float* b, int width) {
  return reduce(width, [=](auto at, int, int) { return at(a) * at(b); });
}

void softmax(float* x, int width) {
  float top = -INFINITY;
  for (int i = 0; i < width; ++i) top = x[i] > top ? x[i] : top;
  float mass = 0.0f;
  for (int i = 0; i < width; ++i) mass += x[i] = std::exp(x[i] - top);
  for (int i = 0; i < width; ++i) x[i] /= mass;
}

constexpr Rows kRows = {rms, layer, add, scale, cap, add_scaled, activate, gate, turn, widen, dot, softmax};

}  // namespace
}  // namespace whet
