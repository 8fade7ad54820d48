// Pages to tiles of numbers that a tier multiplies, and tokens into pages.
#include <cmath>
#include <cstring>

#include "attention/attend.h"
#include "base/half.h"
#include "ops/vector.h"

namespace whet {
namespace {

using Byte = unsigned char;

// Where the pair layouts have a number.
inline size_t key_place(int channel, int position) {
  return static_cast<size_t>(channel / 2) * 2 * kPage + 2 * position + (channel & 1);
}
inline size_t value_place(int channel, int position, int width) {
  return static_cast<size_t>(position / 2) * 2 * width + 2 * channel + (position & 1);
}

inline Byte* bytes(std::byte* p) { return reinterpret_cast<Byte*>(p); }
template <class T>
inline T* as(std::byte* p) { return reinterpret_cast<T*>(p); }

// What the codes of a page are multiplied by, where that is the same for all of a position.
struct Scales {
  const float* keys = nullptr;
  const float* values = nullptr;
};

inline Scales scales_of(Kind kind, int width, Page page) {
  if (kind != Kind::int8) return {};
  const size_t codes = static_cast<size_t>(width) * kPage;
  return {as<float>(page.keys + codes), as<float>(page.values + codes)};
}

// Writes the int8 codes of x at the places that `place` gives; returns their scale.
template <class Place>
inline float coded(const float* x, int dim, Byte* codes, Place&& place) {
  float top = 0.0f;
  for (int c = 0; c < dim; ++c) top = std::fabs(x[c]) > top ? std::fabs(x[c]) : top;
  const float scale = top / 127.0f;
  const float inverse = top > 0.0f ? 127.0f / top : 0.0f;
  for (int c = 0; c < dim; ++c)
    codes[place(c)] = static_cast<Byte>(static_cast<signed char>(std::nearbyint(x[c] * inverse)));
  return scale;
}

void put_int8(int dim, const float* k, const float* v, int place, Page page) {
  const int width = padded(dim);
  const size_t codes = static_cast<size_t>(width) * kPage;
  float* const key_scales = as<float>(page.keys + codes);
  float* const value_scales = as<float>(page.values + codes);
  key_scales[place] = coded(k, dim, bytes(page.keys), [=](int c) { return key_place(c, place); });
  value_scales[place] =
      coded(v, dim, bytes(page.values), [=](int c) { return value_place(c, place, width); });
  if (place % 2 == 0) value_scales[place + 1] = 0.0f;  // its pair is read with weight 0
}

void put_bf16(int dim, const float* k, const float* v, int place, Page page) {
  const int width = padded(dim);
  auto* const keys = as<uint16_t>(page.keys);
  auto* const values = as<uint16_t>(page.values);
  for (int c = 0; c < dim; ++c) keys[key_place(c, place)] = f32_to_bf16(k[c]);
  for (int c = 0; c < dim; ++c) {
    uint16_t* const pair = values + value_place(c, place & ~1, width);
    if (place % 2 == 0) pair[1] = 0;
    pair[place & 1] = f32_to_bf16(v[c]);
  }
}

void put(Kind kind, int dim, const float* k, const float* v, int place, Page page) {
  const int width = padded(dim);
  switch (kind) {
    case Kind::f32:
      for (int c = 0; c < dim; ++c) as<float>(page.keys)[c * kPage + place] = k[c];
      std::memcpy(as<float>(page.values) + place * width, v, sizeof(float) * dim);
      return;
    case Kind::f16:
      for (int c = 0; c < dim; ++c) as<uint16_t>(page.keys)[c * kPage + place] = f32_to_f16(k[c]);
      for (int c = 0; c < dim; ++c) as<uint16_t>(page.values)[place * width + c] = f32_to_f16(v[c]);
      return;
    case Kind::int8: return put_int8(dim, k, v, place, page);
    default: return put_bf16(dim, k, v, place, page);
  }
}

// Unsigned codes of `bits` between the least and the largest of `count` numbers; what they are
// multiplied by and added to is rounded to bf16 first.
template <class Number, class Write>
inline void quantize(int bits, int count, uint16_t* params, Number&& number, Write&& write) {
  float low = number(0), high = low;
  for (int i = 1; i < count; ++i) {
    low = number(i) < low ? number(i) : low;
    high = number(i) > high ? number(i) : high;
  }
  const int top = (1 << bits) - 1;
  params[0] = f32_to_bf16((high - low) / static_cast<float>(top));
  params[1] = f32_to_bf16(low);
  const float scale = bf16_to_f32(params[0]), least = bf16_to_f32(params[1]);
  for (int i = 0; i < count; ++i) {
    const float ratio = scale > 0.0f ? (number(i) - least) / scale : 0.0f;
    const float kept = ratio < 0.0f ? 0.0f : ratio > static_cast<float>(top) ? static_cast<float>(top) : ratio;
    write(i, static_cast<unsigned>(std::nearbyint(kept)));
  }
}

inline void write_code(Byte* codes, int bits, size_t place, unsigned code) {
  const unsigned shift = static_cast<unsigned>(place * bits % 8);
  codes[place * bits / 8] = static_cast<Byte>(codes[place * bits / 8] | code << shift);
}

inline unsigned read_code(const Byte* codes, int bits, size_t place) {
  return codes[place * bits / 8] >> (place * bits % 8) & ((1u << bits) - 1);
}

inline int value_groups(int width) { return (width + kValueGroup - 1) / kValueGroup; }

void settle(Kind kind, int dim, Page from, Page to) {
  const int bits = kind == Kind::kv4 ? 4 : 2, width = padded(dim), groups = value_groups(width);
  const size_t codes = static_cast<size_t>(width) * kPage * bits / 8;
  const auto* const keys = as<const uint16_t>(from.keys);
  const auto* const values = as<const uint16_t>(from.values);
  std::memset(to.keys, 0, codes);
  std::memset(to.values, 0, codes);
  auto* const key_params = as<uint16_t>(to.keys + codes);
  auto* const value_params = as<uint16_t>(to.values + codes);
  for (int c = 0; c < width; ++c)
    quantize(
        bits, kPage, key_params + 2 * c, [=](int j) { return bf16_to_f32(keys[key_place(c, j)]); },
        [=](int j, unsigned code) { write_code(bytes(to.keys), bits, key_place(c, j), code); });
  for (int j = 0; j < kPage; ++j)
    for (int g = 0; g < groups; ++g) {
      const int first = g * kValueGroup;
      const int count = width - first < kValueGroup ? width - first : kValueGroup;
      quantize(
          bits, count, value_params + 2 * (j * groups + g),
          [=](int i) { return bf16_to_f32(values[value_place(first + i, j, width)]); },
          [=](int i, unsigned code) {
            write_code(bytes(to.values), bits, value_place(first + i, j, width), code);
          });
    }
}

inline float restored(const uint16_t* params, unsigned code) {
  return static_cast<float>(code) * bf16_to_f32(params[0]) + bf16_to_f32(params[1]);
}

// Plain tiles, float32: keys [channel][position], values [position][channel].
struct Plain {
  const float* keys;
  const float* values;
};

template <class Key, class Value>
inline Plain filled(int width, float* room, Key&& key, Value&& value) {
  float* const values = room + width * kPage;
  for (int c = 0; c < width; ++c)
    for (int j = 0; j < kPage; ++j) room[c * kPage + j] = key(c, j);
  for (int j = 0; j < kPage; ++j)
    for (int c = 0; c < width; ++c) values[j * width + c] = value(c, j);
  return {room, values};
}

inline Plain plain_coded(Kind kind, int width, Page page, float* room) {
  const int bits = kind == Kind::kv4 ? 4 : 2, groups = value_groups(width);
  const size_t codes = static_cast<size_t>(width) * kPage * bits / 8;
  const Byte* const keys = bytes(page.keys);
  const Byte* const values = bytes(page.values);
  const auto* const key_params = as<const uint16_t>(page.keys + codes);
  const auto* const value_params = as<const uint16_t>(page.values + codes);
  return filled(
      width, room,
      [=](int c, int j) { return restored(key_params + 2 * c, read_code(keys, bits, key_place(c, j))); },
      [=](int c, int j) {
        const unsigned code = read_code(values, bits, value_place(c, j, width));
        return restored(value_params + 2 * (j * groups + c / kValueGroup), code);
      });
}

// Returns the page as a plain tile, in `room` if it is not one already.
inline Plain plain(Kind kind, int width, Page page, float* room) {
  if (kind == Kind::f32) return {as<const float>(page.keys), as<const float>(page.values)};
  if (kind == Kind::kv4 || kind == Kind::kv2) return plain_coded(kind, width, page, room);
  if (kind == Kind::int8) {
    const auto* const keys = as<const signed char>(page.keys);
    const auto* const values = as<const signed char>(page.values);
    return filled(
        width, room, [=](int c, int j) { return static_cast<float>(keys[key_place(c, j)]); },
        [=](int c, int j) { return static_cast<float>(values[value_place(c, j, width)]); });
  }
  const auto* const keys = as<const uint16_t>(page.keys);
  const auto* const values = as<const uint16_t>(page.values);
  if (kind == Kind::f16)
    return filled(
        width, room, [=](int c, int j) { return f16_to_f32(keys[c * kPage + j]); },
        [=](int c, int j) { return f16_to_f32(values[j * width + c]); });
  return filled(
      width, room, [=](int c, int j) { return bf16_to_f32(keys[key_place(c, j)]); },
      [=](int c, int j) { return bf16_to_f32(values[value_place(c, j, width)]); });
}

}  // namespace
}  // namespace whet
