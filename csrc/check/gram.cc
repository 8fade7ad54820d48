// Sums of outer products of every tier are those of the generic one, bit for bit.
#include "check/check.h"
#include "solve/gram.h"

namespace whet::check {
namespace {

constexpr int kTokens[] = {1, 3, 4, 63, 257, 300};
constexpr int kChannels[] = {1, 16, 63, 64, 65, 130};

std::vector<float> numbers_of(const float* from, int channels) { return {from, from + channels}; }

void compare(Report& report, Tier tier, int tokens, int channels, Chance& chance) {
  const auto count = static_cast<std::size_t>(tokens) * static_cast<std::size_t>(channels);
  const std::vector<float> x = chance.numbers(count), y = chance.numbers(count, 3);
  std::vector<float> totals[2];
  Codes left[2] = {{tokens, channels}, {tokens, channels}};
  Codes right[2] = {{tokens, channels}, {tokens, channels}};
  const Tier tiers[2] = {Tier::generic, tier};
  for (int i = 0; i < 2; ++i) {
    encode(tiers[i], x.data(), nullptr, left[i], 1 + i);
    encode(tiers[i], y.data(), x.data(), right[i], 1 + i);
    totals[i].resize(static_cast<std::size_t>(channels) * static_cast<std::size_t>(channels));
    add_products(tiers[i], right[i], left[i], totals[i].data(), 1 + i);
    add_products(tiers[i], left[i], left[i], totals[i].data(), 1 + i);
  }
  const std::string name = "gram/" + std::string(tier_name(tier)) + " " + std::to_string(tokens) +
                           " tokens, channels " + std::to_string(channels);
  report.same(name + ": products", totals[1], totals[0]);
  report.same(name + ": steps", numbers_of(right[1].scale(), channels),
              numbers_of(right[0].scale(), channels));
  report.same(name + ": energies", numbers_of(right[1].energy(), channels),
              numbers_of(right[0].energy(), channels));
}

}  // namespace

void check_gram(Report& report) {
  Chance chance(6);
  for (const Tier tier : other_tiers()) {
    for (const int tokens : kTokens) {
      for (const int channels : kChannels) compare(report, tier, tokens, channels, chance);
    }
  }
}

}  // namespace whet::check
