// The nearest number that a format can write, for a panel of outputs.
#pragma once

#include "solve/grid.h"
#include "solve/panel.inl"

namespace whet {
namespace {

inline constexpr int kChain = 32;  // levels up to which each bound is compared with

inline Vector rounded(Vector x) {  // half to even; of magnitudes below 2^22
  const float magic = 12582912.0f;  // 1.5 · 2^23
  return (x + magic) - magic;
}

inline Vector within(Vector x, Vector low, Vector high) { return smaller(larger(x, low), high); }

inline Vector power_of(Vector x) {  // the greatest power of two up to |x|
  return reinterpret_cast<Vector>(reinterpret_cast<Integers>(x) & 0x7f800000);
}

// Rounded to a float of so few bits; `step` is that of numbers from 1 to 2.
inline Vector rounded_float(Vector x, float least, float step) {
  const Vector wide = larger(power_of(x), all(least)) * step;
  return rounded(x / wide) * wide;
}

inline Vector looked_up(const float* table, Integers place) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vector>(
      _mm512_i32gather_ps(reinterpret_cast<__m512i>(place), table, 4));
#else
  float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = table[place[i]];
  return load(lanes);
#endif
}

inline Integers lanes_from(int first) {
  Integers found;
  for (int i = 0; i < kLanes; ++i) found[i] = first + i;
  return found;
}

inline Vector stored(const Grid& grid, Vector scale) {
  const Vector size = magnitude(scale);
  Vector found;
  switch (grid.stored) {
    case Stored::bf16: {
      const Integers bits =
          reinterpret_cast<Integers>(within(size, all(0x1p-126f), all(0x1.fep127f)));
      found = reinterpret_cast<Vector>((bits + 0x7fff + ((bits >> 16) & 1)) &
                                       static_cast<int32_t>(0xffff0000));
      break;
    }
    case Stored::f16:
      found = rounded_float(within(size, all(0x1p-24f), all(65504.0f)), 0x1p-14f, 0x1p-10f);
      break;
    case Stored::f32:
      found = within(size, all(0x1p-126f), all(0x1.fffffep127f));
      break;
    case Stored::e8m0: {
      const Integers bits =
          reinterpret_cast<Integers>(within(size, all(0x1p-126f), all(0x1p127f)));
      return reinterpret_cast<Vector>((bits + 0x400000) & 0x7f800000);
    }
    default:
      found = rounded_float(within(size / grid.whole, all(0x1p-9f), all(448.0f)), 0x1p-6f, 0.125f);
      return larger(found, all(0x1p-9f)) * grid.whole;
  }
  return scale < 0.0f ? -found : found;
}

// What a panel of outputs can write: its scales, zero points and tables, which it may change.
class Members {
 public:
  Members(const Grid& grid, int inputs, int outputs, int first, Arena& arena)
      : grid_(grid), outputs_(outputs), first_(first), groups_(groups_of(grid, inputs)) {
    scale_ = arena.panel(groups_);
    zero_ = arena.panel(groups_);
    tables_ = arena.panel(2 * grid.levels);
  }

  // Reads the parameters; not done where memory is only being counted.
  void read() {
    take_rows(grid_.scale, groups_, outputs_, first_, 1.0f, scale_);
    if (grid_.zero != nullptr) take_rows(grid_.zero, groups_, outputs_, first_, 0.0f, zero_);
    if (grid_.rounding == Rounding::tables) {
      take_rows(grid_.bounds, grid_.levels - 1, outputs_, first_, 0.0f, tables_);
      take_rows(grid_.values, grid_.levels, outputs_, first_, 0.0f, row(tables_, grid_.levels));
    }
  }

  void write() const {
    give_rows(scale_, groups_, outputs_, first_, grid_.scale);
    if (grid_.zero != nullptr) give_rows(zero_, groups_, outputs_, first_, grid_.zero);
  }

  const Grid& grid() const { return grid_; }
  int place(int input) const { return input / grid_.group; }
  float* scale(int place) { return row(scale_, place); }
  float* zero(int place) { return row(zero_, place); }

  // The nearest unit to a ratio, of the vector that begins at output `at` of the panel.
  Vector unit(Vector ratio, int place, int at) const {
    switch (grid_.rounding) {
      case Rounding::integer: {
        if (grid_.zero == nullptr) return rounded(within(ratio, all(grid_.low), all(grid_.high)));
        const Vector zero = load(row(zero_, place) + at);
        return rounded(within(ratio, -zero, grid_.high - zero));
      }
      case Rounding::minifloat:
        return rounded_float(within(ratio, all(-grid_.top), all(grid_.top)), grid_.least,
                             grid_.step);
      case Rounding::table:
        return grid_.levels <= kChain ? chained(ratio) : bisected(ratio, 1, Integers{});
      default:
        return grid_.levels <= kChain ? chained_own(ratio, at)
                                      : bisected(ratio, kPanel, lanes_from(at));
    }
  }

  // The nearest numbers to those of an input.
  void nearest(const float* wanted, int input, float* found) const {
    const float* const scale = row(scale_, place(input));
    for (int at = 0; at < kPanel; at += kLanes) {
      const Vector s = load(scale + at);
      store(found + at, unit(load(wanted + at) / s, place(input), at) * s);
    }
    if (grid_.mask == nullptr) return;
    const float* const mask = grid_.mask + static_cast<size_t>(input) * outputs_;
    for (int i = 0; i < kPanel && first_ + i < outputs_; ++i) found[i] *= mask[first_ + i];
  }

 private:
  static int groups_of(const Grid& grid, int inputs) {
    return (inputs + grid.group - 1) / grid.group;
  }

  Vector chained(Vector ratio) const {
    Vector found = all(grid_.values[0]);
    for (int i = 0; i + 1 < grid_.levels; ++i) {
      found = ratio > all(grid_.bounds[i]) ? all(grid_.values[i + 1]) : found;
    }
    return found;
  }

  Vector chained_own(Vector ratio, int at) const {
    const float* const values = row(tables_, grid_.levels);
    Vector found = load(values + at);
    for (int i = 0; i + 1 < grid_.levels; ++i) {
      found = ratio > load(row(tables_, i) + at) ? load(row(values, i + 1) + at) : found;
    }
    return found;
  }

  // By halves: the first bound that a ratio is not above. Tables of outputs lie `stride` apart.
  Vector bisected(Vector ratio, int stride, Integers lane) const {
    const bool own = stride > 1;
    const float* const bounds = own ? tables_ : grid_.bounds;
    Integers below{};
    for (int span = width_; span > 0; span /= 2) {
      const Integers next = below + span;
      const Integers last = next > grid_.levels - 1 ? Integers{} + (grid_.levels - 1) : next;
      const Integers above = ratio > looked_up(bounds, (last - 1) * stride + lane);
      below = (above & (next <= grid_.levels - 1)) != 0 ? next : below;
    }
    return looked_up(own ? row(tables_, grid_.levels) : grid_.values, below * stride + lane);
  }

  const Grid& grid_;
  const int outputs_, first_, groups_;
  float *scale_, *zero_, *tables_;
  static constexpr int width_ = 128;  // half of the most levels that there are
};

}  // namespace
}  // namespace whet
