// Runs all checks, or those that are named; returns 1 if a kernel differs from its twin.
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>

#include "check/check.h"

namespace whet::check {

void Report::tell(const std::string& name, std::size_t at, float found, float expected) {
  if (++failed_ > 20) return;
  std::printf("  %s: [%zu] is %.9g, expected %.9g\n", name.c_str(), at, found, expected);
}

void Report::same(const std::string& name, const std::vector<float>& found,
                  const std::vector<float>& expected) {
  ++compared_;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (std::bit_cast<uint32_t>(found[i]) != std::bit_cast<uint32_t>(expected[i])) {
      return tell(name, i, found[i], expected[i]);
    }
  }
}

void Report::near(const std::string& name, const std::vector<float>& found,
                  const std::vector<float>& expected, const std::vector<float>& bounds) {
  ++compared_;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const bool both = std::isnan(found[i]) && std::isnan(expected[i]);
    if (!both && found[i] != expected[i] && !(std::fabs(found[i] - expected[i]) <= bounds[i])) {
      return tell(name, i, found[i], expected[i]);
    }
  }
}

void Report::near(const std::string& name, const std::vector<float>& found,
                  const std::vector<float>& expected, float bound) {
  near(name, found, expected, std::vector<float>(expected.size(), bound));
}

void Report::that(const std::string& name, bool good) {
  ++compared_;
  if (!good) tell(name, 0, 0, 1);
}

std::vector<float> Chance::numbers(std::size_t count, float spread) {
  std::vector<float> found(count);
  for (float& each : found) each = spread * (signed_unit() + signed_unit() + signed_unit());
  return found;
}

std::vector<std::byte> Chance::bytes(std::size_t count) {
  std::vector<std::byte> found(count);
  for (std::byte& each : found) each = static_cast<std::byte>(bits() & 255);
  return found;
}

std::vector<Tier> other_tiers() {
  std::vector<Tier> found = tiers();
  found.erase(found.begin());
  return found;
}

}  // namespace whet::check

int main(int count, char** names) {
  using namespace whet::check;
  constexpr struct {
    const char* name;
    void (*run)(Report&);
  } kAll[] = {{"integer", check_integer},
              {"table", check_table},
              {"attention", check_attention},
              {"rows", check_rows},
              {"solve", check_solve},
              {"gram", check_gram}};
  std::printf("tiers:");
  for (whet::Tier tier : whet::tiers()) std::printf(" %s", whet::tier_name(tier));
  std::printf("\n");
  int failed = 0;
  for (const auto& each : kAll) {
    bool wanted = count == 1;
    for (int i = 1; i < count; ++i) wanted = wanted || std::strcmp(names[i], each.name) == 0;
    if (!wanted) continue;
    Report report;
    const auto begin = std::chrono::steady_clock::now();
    each.run(report);
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
    std::printf("%-9s  %6d compared, %d differ  (%.1f s)\n", each.name, report.compared(),
                report.failed(), spent.count());
    failed += report.failed();
  }
  return failed == 0 ? 0 : 1;
}
