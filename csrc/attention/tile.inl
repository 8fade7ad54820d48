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

// Plain tiles, float32: keys [channel][position], values [position][channel].
struct Plain {
  const float* keys;
  const float* values;
};

// `kLanes` pairs of each kind to the two numbers of each.
struct Two {
  Vector first, second;
};

inline Two two_bf16(const std::byte* pairs) {
  Integers both;
  std::memcpy(&both, pairs, sizeof both);
  return {reinterpret_cast<Vector>(both << 16),
          reinterpret_cast<Vector>(both & static_cast<int32_t>(0xffff0000))};
}

inline Vector numbers(Integers whole) { return __builtin_convertvector(whole, Vector); }

inline Two two_int8(const std::byte* pairs) {
  typedef int16_t Shorts __attribute__((vector_size(2 * kLanes)));
  Shorts both;
  std::memcpy(&both, pairs, sizeof both);
  const Integers wide = __builtin_convertvector(both, Integers);
  return {numbers(wide << 24 >> 24), numbers(wide >> 8)};
}

template <int bits>
inline Two two_codes(const std::byte* pairs) {
  Integers both;
  for (int i = 0; i < kLanes; ++i)
    both[i] = static_cast<int32_t>(pairs[i * bits / 4]) >> (i * bits % 4 * 2);
  return {numbers(both & ((1 << bits) - 1)), numbers(both >> bits & ((1 << bits) - 1))};
}

// Writes rows of numbers that lie in pairs, of a row and the next; `two(row, i)` reads `kLanes` of
// them, from the i-th on.
template <class F>
inline void unpaired(int rows, int length, float* to, F&& two) {
  for (int row = 0; row < rows; row += 2, to += 2 * length)
    for (int i = 0; i < length; i += kLanes) {
      const Two numbers = two(row, i);
      store(to + i, numbers.first);
      store(to + length + i, numbers.second);
    }
}

// Bytes before the pair of a row and its i-th number, `bits` a number.
inline size_t pair_at(int bits, int length, int row, int i) {
  return (static_cast<size_t>(row) * length + 2 * i) * bits / 8;
}

template <int bits>
inline Plain plain_coded(int width, Page page, float* room) {
  const size_t codes = static_cast<size_t>(width) * kPage * bits / 8;
  const int groups = value_groups(width);
  const auto* const key_params = as<const uint16_t>(page.keys + codes);
  const auto* const value_params = as<const uint16_t>(page.values + codes);
  // Codes times a scale, and the least.
  const auto restored = [](Vector code, const uint16_t* params) {
    return code * bf16_to_f32(params[0]) + bf16_to_f32(params[1]);
  };
  unpaired(width, kPage, room, [=](int c, int j) {
    const Two two = two_codes<bits>(page.keys + pair_at(bits, kPage, c, j));
    return Two{restored(two.first, key_params + 2 * c), restored(two.second, key_params + 2 * c + 2)};
  });
  unpaired(kPage, width, room + width * kPage, [=](int j, int c) {
    const Two two = two_codes<bits>(page.values + pair_at(bits, width, j, c));
    const uint16_t* const params = value_params + 2 * (j * groups + c / kValueGroup);
    return Two{restored(two.first, params), restored(two.second, params + 2 * groups)};
  });
  return {room, room + width * kPage};
}

inline Plain plain_f16(int width, Page page, float* room) {
  for (int i = 0; i < width * kPage; i += kLanes) {
    store(room + i, load_f16(as<const uint16_t>(page.keys) + i));
    store(room + width * kPage + i, load_f16(as<const uint16_t>(page.values) + i));
  }
  return {room, room + width * kPage};
}

template <int bits, class F>
inline Plain plain_pairs(int width, Page page, float* room, F&& two) {
  unpaired(width, kPage, room,
           [=](int c, int j) { return two(page.keys + pair_at(bits, kPage, c, j)); });
  unpaired(kPage, width, room + width * kPage,
           [=](int j, int c) { return two(page.values + pair_at(bits, width, j, c)); });
  return {room, room + width * kPage};
}

// Returns the page as a plain tile, in `room` if it is not one already.
inline Plain plain(Kind kind, int width, Page page, float* room) {
  switch (kind) {
    case Kind::f32: return {as<const float>(page.keys), as<const float>(page.values)};
    case Kind::f16: return plain_f16(width, page, room);
    case Kind::int8: return plain_pairs<8>(width, page, room, two_int8);
    case Kind::kv4: return plain_coded<4>(width, page, room);
    case Kind::kv2: return plain_coded<2>(width, page, room);
    case Kind::bf16: break;
  }
  return plain_pairs<16>(width, page, room, two_bf16);
}

}  // namespace
}  // namespace whet
