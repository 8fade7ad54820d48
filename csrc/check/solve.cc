// Second-order rounding of every tier: nearly all numbers are those of the generic one, since sums that are
// fused may break a tie otherwise; and what each tier says of its own result is true.
#include "solve/solve.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/aligned.h"
#include "check/check.h"

namespace whet::check {
namespace {

constexpr int kInputs[] = {5, 16, 40, 130};
constexpr int kOutputs[] = {1, 17, 70};
constexpr int kGroup = 16;
constexpr float kRidge = 0.01f;

using Numbers = std::vector<float>;

// H of correlated inputs, its factor in an order, and a target.
struct Posed {
  int inputs, outputs;
  Numbers gram, lower, target;
  std::vector<int64_t> order;

  std::size_t at(int row, int column) const {
    return static_cast<std::size_t>(row) * static_cast<std::size_t>(inputs) +
           static_cast<std::size_t>(column);
  }
  std::size_t place(int input, int output) const {
    return static_cast<std::size_t>(input) * static_cast<std::size_t>(outputs) +
           static_cast<std::size_t>(output);
  }
};

void factor(Posed& p) {
  p.lower.assign(p.gram.size(), 0.0f);
  for (int r = 0; r < p.inputs; ++r) {
    for (int c = 0; c <= r; ++c) {
      double left = p.gram[p.at(static_cast<int>(p.order[r]), static_cast<int>(p.order[c]))];
      if (r == c) left += kRidge;
      for (int k = 0; k < c; ++k) {
        left -= static_cast<double>(p.lower[p.at(r, k)]) * p.lower[p.at(c, k)];
      }
      p.lower[p.at(r, c)] = static_cast<float>(r == c ? std::sqrt(left) : left / p.lower[p.at(c, c)]);
    }
  }
}

Posed posed(int inputs, int outputs, Chance& chance) {
  Posed p{inputs, outputs, {}, {}, {}, {}};
  const int tokens = 2 * inputs + 3;
  Numbers x = chance.numbers(static_cast<std::size_t>(tokens) * inputs, 0.3f);
  for (int t = 0; t < tokens; ++t) {
    for (int i = 1; i < inputs; ++i) x[p.at(t, i)] += 0.5f * x[p.at(t, i - 1)];
  }
  p.gram.assign(static_cast<std::size_t>(inputs) * inputs, 0.0f);
  for (int t = 0; t < tokens; ++t) {
    for (int r = 0; r < inputs; ++r) {
      for (int c = 0; c < inputs; ++c) p.gram[p.at(r, c)] += x[p.at(t, r)] * x[p.at(t, c)];
    }
  }
  p.target = chance.numbers(static_cast<std::size_t>(inputs) * outputs);
  p.order.resize(static_cast<std::size_t>(inputs));
  std::iota(p.order.begin(), p.order.end(), 0);
  std::reverse(p.order.begin(), p.order.end());
  factor(p);
  return p;
}

// A format with the numbers that it owns.
struct Format {
  std::string name;
  Grid grid;
  Numbers scale, zero, bounds, values, mask;

  void attach() {
    grid.scale = scale.data();
    grid.zero = zero.empty() ? nullptr : zero.data();
    grid.bounds = bounds.empty() ? nullptr : bounds.data();
    grid.values = values.empty() ? nullptr : values.data();
    grid.mask = mask.empty() ? nullptr : mask.data();
  }
};

// Ascending levels from -1 to 1, of one table or of one for each output.
void set_levels(Format& format, int levels, int tables) {
  format.grid.rounding = tables == 1 ? Rounding::table : Rounding::tables;
  format.grid.levels = levels;
  for (int i = 0; i < levels; ++i) {
    for (int t = 0; t < tables; ++t) {
      const float even = 2.0f * static_cast<float>(i) / static_cast<float>(levels - 1) - 1.0f;
      format.values.push_back(even * (1.0f + 0.01f * static_cast<float>(t)));
    }
  }
  for (int i = 0; i + 1 < levels; ++i) {
    for (int t = 0; t < tables; ++t) {
      const std::size_t here = static_cast<std::size_t>(i) * tables + t;
      format.bounds.push_back(0.5f * (format.values[here] + format.values[here + tables]));
    }
  }
}

std::vector<Format> formats(const Posed& p, Chance& chance) {
  const std::size_t groups = static_cast<std::size_t>((p.inputs + kGroup - 1) / kGroup);
  const std::size_t scales = groups * static_cast<std::size_t>(p.outputs);
  std::vector<Format> found(7);
  const char* const names[] = {"integers", "zero points", "masked", "minifloat",
                               "table",    "long table",  "tables"};
  for (std::size_t i = 0; i < found.size(); ++i) {
    found[i].name = names[i];
    found[i].grid.group = kGroup;
    found[i].scale.assign(scales, i < 4 ? 0.25f : 2.0f);
    found[i].grid.low = -8, found[i].grid.high = 7;
  }
  found[1].zero.assign(scales, 7.0f);
  found[1].grid.high = 15, found[1].grid.moves_zero = true;
  for (std::size_t i = 0; i < p.target.size(); ++i) {
    found[2].mask.push_back(static_cast<float>(chance.below(2)));
  }
  found[3].grid.rounding = Rounding::minifloat;
  found[3].grid.top = 6, found[3].grid.least = 1, found[3].grid.step = 0.5f;
  set_levels(found[4], 16, 1);
  set_levels(found[5], 64, 1);
  set_levels(found[6], 16, p.outputs);
  for (Format& each : found) each.attach();
  return found;
}

template <class Work>
void each_panel(const Solver& solver, const Posed& p, const Grid& grid, Work&& work) {
  Aligned scratch(solver.scratch(p.inputs, grid) * sizeof(float));
  for (int first = 0; first < p.outputs; first += solver.lanes) {
    work(first, reinterpret_cast<float*>(scratch.data()));
  }
}

// Of each output (Q-T)ᵀ (H + ridge·I) (Q-T).
Numbers losses(const Posed& p, const Numbers& values) {
  Numbers found(static_cast<std::size_t>(p.outputs));
  for (int o = 0; o < p.outputs; ++o) {
    double loss = 0;
    for (int r = 0; r < p.inputs; ++r) {
      const double own = values[p.place(r, o)] - p.target[p.place(r, o)];
      loss += static_cast<double>(kRidge) * own * own;
      for (int c = 0; c < p.inputs; ++c) {
        loss += own * p.gram[p.at(r, c)] * (values[p.place(c, o)] - p.target[p.place(c, o)]);
      }
    }
    found[static_cast<std::size_t>(o)] = static_cast<float>(loss);
  }
  return found;
}

Numbers gradient(const Posed& p, const Numbers& values) {
  Numbers found(values.size());
  for (int r = 0; r < p.inputs; ++r) {
    for (int o = 0; o < p.outputs; ++o) {
      double sum = static_cast<double>(kRidge) * (values[p.place(r, o)] - p.target[p.place(r, o)]);
      for (int c = 0; c < p.inputs; ++c) {
        sum += static_cast<double>(p.gram[p.at(r, c)]) *
               (values[p.place(c, o)] - p.target[p.place(c, o)]);
      }
      found[p.place(r, o)] = static_cast<float>(sum);
    }
  }
  return found;
}

Numbers bounds_of(const Numbers& numbers, float share) {
  float most = 1e-3f;
  for (const float each : numbers) most = std::max(most, std::fabs(each));
  return Numbers(numbers.size(), share * most);
}

struct Solution {
  Numbers values, loss;
};

// GPTQ, then two sweeps of descent; at every step the figures that go with the values are true.
Solution solved(Report& report, Tier tier, const Posed& p, Format format, const std::string& name) {
  format.attach();
  const Solver& solver = solver_of(tier);
  Solution found{Numbers(p.target.size()), Numbers(static_cast<std::size_t>(p.outputs))};
  const Columns columns{p.inputs, p.outputs, p.target.data(), p.lower.data(), p.order.data(),
                        found.values.data(), found.loss.data()};
  each_panel(solver, p, format.grid, [&](int first, float* scratch) {
    solver.columns(columns, format.grid, first, scratch);
  });
  Numbers before = losses(p, found.values);
  report.near(name + ": loss", found.loss, before, bounds_of(before, 1e-3f));
  Numbers slope = gradient(p, found.values);
  for (int turn = 0; turn < 2; ++turn) {
    const Sweep sweep{p.inputs, p.outputs, found.values.data(), slope.data(), p.gram.data(),
                      kRidge,   true,      turn == 0,           true,         2 * kGroup};
    each_panel(solver, p, format.grid, [&](int first, float* scratch) {
      solver.sweep(sweep, format.grid, first, scratch);
    });
    const Numbers exact = gradient(p, found.values), after = losses(p, found.values);
    report.near(name + ": gradient", slope, exact, bounds_of(exact, 1e-3f));
    bool never_worse = true;
    for (std::size_t o = 0; o < after.size(); ++o) {
      never_worse = never_worse && after[o] <= before[o] * 1.001f + 1e-4f;
    }
    report.that(name + ": no sweep is for the worse", never_worse);
    before = after;
  }
  found.loss = before;
  return found;
}

bool mostly_near(const Numbers& found, const Numbers& expected) {
  std::size_t far = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    far += !(std::fabs(found[i] - expected[i]) <= 1e-4f * std::fabs(expected[i]) + 1e-5f);
  }
  return far * 50 <= expected.size();
}

void compare(Report& report, int inputs, int outputs, Chance& chance) {
  const Posed p = posed(inputs, outputs, chance);
  for (const Format& format : formats(p, chance)) {
    const std::string about = format.name + " " + std::to_string(inputs) + " x " +
                              std::to_string(outputs);
    const Solution expected = solved(report, Tier::generic, p, format, "solve/generic " + about);
    for (const Tier tier : other_tiers()) {
      const std::string name = "solve/" + std::string(tier_name(tier)) + " " + about;
      const Solution found = solved(report, tier, p, format, name);
      report.that(name + ": values", mostly_near(found.values, expected.values));
    }
  }
}

}  // namespace

void check_solve(Report& report) {
  Chance chance(5);
  for (const int inputs : kInputs) {
    for (const int outputs : kOutputs) compare(report, inputs, outputs, chance);
  }
}

}  // namespace whet::check
