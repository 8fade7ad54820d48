// The solver, compiled once for each tier.
#pragma once

#include <algorithm>

#include "solve/grid.inl"
#include "solve/solve.h"

namespace whet {
namespace {

inline constexpr int kLeaf = 16;  // inputs whose sums are updated one by one

// to += factor · b, of a row.
inline void add_scaled(float* to, float factor, const float* b) {
  for (int at = 0; at < kPanel; at += kLanes) {
    store(to + at, fused(all(factor), load(b + at), load(to + at)));
  }
}

void columns_of(const Columns& p, const Grid& grid, int first, float* scratch) {
  Arena arena(scratch);
  Members members(grid, p.inputs, p.outputs, first, arena);
  members.read();
  float* const owed = arena.panel(p.inputs);
  float* const delta = arena.panel(kLeaf);
  float* const line = arena.panel(4);  // target, wanted, found, loss
  float *const target = line, *const wanted = row(line, 1), *const found = row(line, 2);
  float* const loss = row(line, 3);
  int which[kLeaf];
  std::fill_n(owed, static_cast<size_t>(p.inputs) * kPanel, 0.0f);
  std::fill_n(loss, kPanel, 0.0f);
  for (int high = p.inputs; high > 0; high -= kLeaf) {
    const int low = std::max(high - kLeaf, 0);
    for (int j = high - 1; j >= low; --j) {
      const float* const lower = p.lower + static_cast<size_t>(j) * p.inputs;
      const int input = static_cast<int>(p.order[j]);
      const size_t place = static_cast<size_t>(input) * p.outputs;
      take(p.target + place, p.outputs, first, 0.0f, target);
      std::copy_n(target, kPanel, wanted);
      add_scaled(wanted, -1.0f / lower[j], row(owed, j));
      members.nearest(wanted, input, found);
      give(found, p.outputs, first, p.result + place);
      float* const change = row(delta, j - low);
      const float weight = lower[j] * lower[j];
      for (int at = 0; at < kPanel; at += kLanes) {
        const Vector value = load(found + at), off = load(wanted + at) - value;
        store(change + at, value - load(target + at));
        store(loss + at, fused(off * off, all(weight), load(loss + at)));
      }
      for (int i = low; i < j; ++i) add_scaled(row(owed, i), lower[i], change);
    }
    const Moved moved = moved_rows(delta, high - low, which);
    const float* const lower = p.lower + static_cast<size_t>(low) * p.inputs;
    add_products(owed, 0, low, moved, high - low, {lower, 1, static_cast<size_t>(p.inputs)});
  }
  give(loss, p.outputs, first, p.loss);
}

// One sweep over a panel.
class Descent {
 public:
  Descent(const Sweep& p, const Grid& grid, int first, Arena& arena)
      : p_(p), first_(first), members_(grid, p.inputs, p.outputs, first, arena) {
    values_ = arena.panel(p.inputs);
    gradient_ = arena.panel(p.inputs);
    before_ = arena.panel(p.inputs);
    unit_ = arena.panel(p.inputs);
    leaf_ = arena.panel(2 * kLeaf);
    line_ = arena.panel(2 + kRows);
    which_ = reinterpret_cast<int*>(arena.floats(static_cast<size_t>(p.inputs)));
  }

  int64_t run() {
    members_.read();
    take_rows(p_.values, p_.inputs, p_.outputs, first_, 0.0f, values_);
    take_rows(p_.gradient, p_.inputs, p_.outputs, first_, 0.0f, gradient_);
    const int64_t changed = p_.recode ? recode_all() : 0;
    if (p_.settle && (!p_.local || !p_.recode)) settle_all();
    give_rows(values_, p_.inputs, p_.outputs, first_, p_.values);
    give_rows(gradient_, p_.inputs, p_.outputs, first_, p_.gradient);
    members_.write();
    return changed;
  }

 private:
  int64_t recode_all() {
    int64_t changed = 0;
    for (int start = 0; start < p_.inputs; start += p_.slab) {
      const int stop = std::min(start + p_.slab, p_.inputs);
      keep(start, stop);
      changed += recode(start, stop);
      if (p_.settle && p_.local) settle(start, stop);
      spread(start, stop);
    }
    return changed;
  }

  void settle_all() {
    for (int start = 0; start < p_.inputs; start += members_.grid().group) {
      const int stop = std::min(start + members_.grid().group, p_.inputs);
      keep(start, stop);
      settle(start, stop);
      spread(start, stop);
    }
  }

  const float* gram(int r) const { return p_.gram + static_cast<size_t>(r) * p_.inputs; }

  size_t inputs() const { return static_cast<size_t>(p_.inputs); }

  // H from a column on.
  Coefficients gram_from(int column) const { return {p_.gram + column, inputs(), 1}; }

  void keep(int start, int stop) {
    std::copy(row(values_, start), row(values_, stop), before_);
  }

  int64_t recode(int start, int stop) {
    for (int low = start; low < stop; low += kLeaf) {
      recode_leaf(start, stop, low, std::min(low + kLeaf, stop));
    }
    const int valid = std::min(kPanel, p_.outputs - first_);
    int64_t changed = 0;
    for (int r = start; r < stop; ++r) {
      const float *const now = row(values_, r), *const old = row(before_, r - start);
      for (int i = 0; i < valid; ++i) changed += now[i] != old[i];
    }
    return changed;
  }

  void recode_leaf(int start, int stop, int low, int high) {
    float *const slope = leaf_, *const moved = row(leaf_, kLeaf);
    float *const wanted = line_, *const found = row(line_, 1);
    std::copy(row(gradient_, low), row(gradient_, high), slope);
    std::fill_n(moved, static_cast<size_t>(kLeaf) * kPanel, 0.0f);
    for (int j = low; j < high; ++j) {
      const float* const h = gram(j);
      const float pivot = h[j] + p_.ridge;
      if (!(pivot > 0.0f)) continue;
      float *const value = row(values_, j), *const change = row(moved, j - low);
      std::copy_n(value, kPanel, wanted);
      add_scaled(wanted, -1.0f / pivot, row(slope, j - low));
      members_.nearest(wanted, j, found);
      for (int at = 0; at < kPanel; at += kLanes) {
        const Vector now = load(found + at);
        store(change + at, now - load(value + at));
        store(value + at, now);
      }
      if (!any(change)) continue;
      for (int i = j + 1; i < high; ++i) add_scaled(row(slope, i - low), h[i], change);
    }
    move(start, stop, low, high - low, moved);
  }

  // Carries a change of some inputs to the gradient of a slab.
  void move(int start, int stop, int low, int count, const float* changes) {
    const Moved moved = moved_rows(changes, count, which_);
    add_products(gradient_, start, stop, moved, count, gram_from(low));
    for (int i = 0; i < moved.count; ++i) {
      const int k = moved.rows[i];
      add_scaled(row(gradient_, low + k), p_.ridge, row(changes, k));
    }
  }

  // Carries what has changed in a slab to the gradient of all other inputs.
  void spread(int start, int stop) {
    if (stop - start == p_.inputs) return;
    for (int r = start; r < stop; ++r) {
      float* const old = row(before_, r - start);
      for (int at = 0; at < kPanel; at += kLanes) {
        store(old + at, load(row(values_, r) + at) - load(old + at));
      }
    }
    const Moved moved = moved_rows(before_, stop - start, which_);
    const int count = stop - start;
    add_products(gradient_, 0, start, moved, count, gram_from(start));
    add_products(gradient_, stop, p_.inputs, moved, count, gram_from(start));
  }

  void settle(int start, int stop) {
    const int group = members_.grid().group;
    for (int low = start; low < stop; low += group) {
      const int high = std::min(low + group, stop);
      rescale(start, stop, low, high);
      if (members_.grid().moves_zero) rezero(start, stop, low, high);
    }
  }

  // The units of a group; beside a zero point they count from it.
  void find_units(int low, int high) {
    const int place = members_.place(low);
    for (int j = low; j < high; ++j) {
      for (int at = 0; at < kPanel; at += kLanes) {
        const Vector ratio = load(row(values_, j) + at) / load(members_.scale(place) + at);
        store(row(unit_, j - low) + at, members_.unit(ratio, place, at));
      }
    }
  }

  // Σ over a group of uᵀ(H + ridge·I)u.
  void bend(int low, int high, float* curve) {
    const Moved moved = moved_rows(unit_, high - low, which_);
    std::fill_n(curve, kPanel, 0.0f);
    int k = 0;
    for (; k + kRows <= high - low; k += kRows) add_bend<kRows>(low, k, moved, curve);
    for (; k < high - low; ++k) add_bend<1>(low, k, moved, curve);
  }

  template <int Rows>
  void add_bend(int low, int k, const Moved& moved, float* curve) {
    float* const pull = row(line_, 2);
    std::fill_n(pull, static_cast<size_t>(Rows) * kPanel, 0.0f);
    add_some<Rows>(pull, moved, Coefficients{gram(low) + low, inputs(), 1}, k);
    for (int i = 0; i < Rows; ++i) {
      const float* const unit = row(unit_, k + i);
      add_scaled(row(pull, i), p_.ridge, unit);
      for (int at = 0; at < kPanel; at += kLanes) {
        store(curve + at,
              fused(load(row(pull, i) + at), load(unit + at), load(curve + at)));
      }
    }
  }

  // Changes a scale by δ: along the units the loss gains 2δ uᵀG + δ² uᵀHu.
  void rescale(int start, int stop, int low, int high) {
    find_units(low, high);
    float *const slope = line_, *const curve = row(line_, 1);
    std::fill_n(slope, kPanel, 0.0f);
    for (int j = low; j < high; ++j) {
      for (int at = 0; at < kPanel; at += kLanes) {
        store(slope + at, fused(load(row(unit_, j - low) + at), load(row(gradient_, j) + at),
                                load(slope + at)));
      }
    }
    bend(low, high, curve);
    float* const scale = members_.scale(members_.place(low));
    for (int at = 0; at < kPanel; at += kLanes) {
      const Vector old = load(scale + at), g = load(slope + at), c = load(curve + at);
      const Vector now = stored(members_.grid(), old - g / larger(c, all(0x1p-126f)));
      const Vector step = now - old;
      const Vector gain = 2.0f * step * g + step * step * c;
      const Vector better = gain < 0.0f ? now : old;
      store(scale + at, c > 0.0f ? better : old);
    }
    replace(start, stop, low, high, scale);
  }

  // Moves a zero point by one, which moves all values of its group by one scale.
  void rezero(int start, int stop, int low, int high) {
    const int place = members_.place(low);
    float *const scale = members_.scale(place), *const zero = members_.zero(place);
    double all_of = static_cast<double>(p_.ridge) * (high - low);
    for (int j = low; j < high; ++j) {
      for (int k = low; k < high; ++k) all_of += static_cast<double>(gram(j)[k]);
    }
    find_units(low, high);
    for (int at = 0; at < kPanel; at += kLanes) {
      Vector slope{};
      for (int j = low; j < high; ++j) slope += load(row(gradient_, j) + at);
      const Vector old = load(zero + at), s = load(scale + at);
      Vector best = old, least{};
      for (const float shift : {-1.0f, 1.0f}) {
        const Vector now = within(old + shift, Vector{}, all(members_.grid().high));
        const Vector step = -s * (now - old);
        const Vector gain = 2.0f * step * slope + step * step * static_cast<float>(all_of);
        best = gain < least ? now : best;
        least = smaller(gain, least);
      }
      for (int j = low; j < high; ++j) {
        float* const unit = row(unit_, j - low) + at;
        store(unit, load(unit) + (old - best));
      }
      store(zero + at, best);
    }
    replace(start, stop, low, high, scale);
  }

  // Gives a group the values of its units.
  void replace(int start, int stop, int low, int high, const float* scale) {
    for (int j = low; j < high; ++j) {
      float *const value = row(values_, j), *const unit = row(unit_, j - low);
      for (int at = 0; at < kPanel; at += kLanes) {
        const Vector now = load(unit + at) * load(scale + at);
        store(unit + at, now - load(value + at));
        store(value + at, now);
      }
    }
    move(start, stop, low, high - low, unit_);
  }

  const Sweep& p_;
  const int first_;
  Members members_;
  float *values_, *gradient_, *before_, *unit_, *leaf_, *line_;
  int* which_;
};

int64_t sweep_of(const Sweep& problem, const Grid& grid, int first, float* scratch) {
  Arena arena(scratch);
  return Descent(problem, grid, first, arena).run();
}

// Floats that a panel of either task needs at most.
size_t scratch_of(int inputs, const Grid& grid) {
  Arena arena(nullptr);
  Sweep sweep;
  sweep.inputs = inputs;
  Descent(sweep, grid, 0, arena);
  return arena.used();
}

const Solver kSolver = {kPanel, &scratch_of, &columns_of, &sweep_of};

}  // namespace
}  // namespace whet
