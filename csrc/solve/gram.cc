#include "solve/gram.h"

#include <algorithm>
#include <atomic>

#include "base/team.h"

namespace whet {
namespace {

constexpr int kTile = kCodesPanel * kCodesPanel;

const Grammar& grammar(Tier tier) {
#if defined(__x86_64__)
  if (has_avx512(tier)) return grammar_avx512();
#endif
  (void)tier;
  return grammar_generic();
}

// Calls work(number) for each number below `count`; threads take the next one that is left.
template <class Work>
void each(int count, int threads, Work&& work) {
  Team team(std::clamp(threads, 1, std::max(count, 1)));
  std::atomic<int> next{0};
  team.run([&](int) {
    for (int number = next++; number < count; number = next++) work(number);
  });
}

// Adds the products of panels i and j to their place, and to that across the diagonal if `mirrored`.
void add_tile(const Codes& left, int i, const Codes& right, int j, const int32_t* products,
              bool mirrored, float* total) {
  const int top = i * kCodesPanel, first = j * kCodesPanel;
  const int rows = std::min(kCodesPanel, left.channels - top);
  const int columns = std::min(kCodesPanel, right.channels - first);
  const auto width = static_cast<std::size_t>(right.channels);
  float sized[kTile];
  for (int r = 0; r < rows; ++r) {
    const float own = left.scale()[top + r];
    float* const to = total + static_cast<std::size_t>(top + r) * width + first;
    for (int c = 0; c < columns; ++c) {
      const float product = static_cast<float>(products[r * kCodesPanel + c]) * own;
      sized[r * kCodesPanel + c] = product * right.scale()[first + c];
      to[c] += sized[r * kCodesPanel + c];
    }
  }
  if (!mirrored) return;
  for (int c = 0; c < columns; ++c) {
    float* const to = total + static_cast<std::size_t>(first + c) * width + top;
    for (int r = 0; r < rows; ++r) to[r] += sized[r * kCodesPanel + c];
  }
}

}  // namespace

Codes::Codes(int tokens, int channels) : tokens(tokens), channels(channels) {
  const auto padded = static_cast<std::size_t>(panels()) * kCodesPanel;
  codes = Aligned(panel_bytes() * static_cast<std::size_t>(panels()));
  scales = Aligned(padded * sizeof(float));
  sums = Aligned(padded * sizeof(int32_t));
  energies = Aligned(padded * sizeof(float));
}

void encode(Tier tier, const float* x, const float* minus, Codes& into, int threads) {
  const Grammar& chosen = grammar(tier);
  each(into.panels(), threads, [&](int panel) { chosen.encode(x, minus, into, panel); });
}

void add_products(Tier tier, const Codes& left, const Codes& right, float* total, int threads) {
  const Grammar& chosen = grammar(tier);
  const bool same = &left == &right;
  const int rows = left.panels(), columns = right.panels();
  each(rows * columns, threads, [&](int number) {
    const int i = number / columns, j = number % columns;
    if (same && j > i) return;
    alignas(kLine) int32_t products[kTile];
    chosen.multiply(left, i, right, j, products);
    add_tile(left, i, right, j, products, same && j < i, total);
  });
}

}  // namespace whet
