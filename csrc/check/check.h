// Kernels of every tier that runs here against their generic twins, without Python: what is tested
// of processors that only an emulator stands for. tests/kernels tests the generic ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "base/cpu.h"

namespace whet::check {

// Counts comparisons, and tells of those that fail, the first few by name.
class Report {
 public:
  // Whether each of `found` is the same bits as `expected`.
  void same(const std::string& name, const std::vector<float>& found,
            const std::vector<float>& expected);
  // Whether each is as near as its bound.
  void near(const std::string& name, const std::vector<float>& found,
            const std::vector<float>& expected, const std::vector<float>& bounds);
  void near(const std::string& name, const std::vector<float>& found,
            const std::vector<float>& expected, float bound);
  void that(const std::string& name, bool good);
  int compared() const { return compared_; }
  int failed() const { return failed_; }

 private:
  void tell(const std::string& name, std::size_t at, float found, float expected);
  int compared_ = 0, failed_ = 0;
};

// Numbers that are the same on every machine.
class Chance {
 public:
  explicit Chance(uint32_t seed) : bits_(seed) {}
  uint32_t bits() { return static_cast<uint32_t>(bits_()); }
  int below(int end) { return static_cast<int>(bits() % static_cast<uint32_t>(end)); }
  float signed_unit() { return static_cast<float>(static_cast<int32_t>(bits())) * 0x1p-31f; }
  std::vector<float> numbers(std::size_t count, float spread = 1);
  std::vector<std::byte> bytes(std::size_t count);

 private:
  std::mt19937 bits_;
};

// Tiers other than the generic one that run here.
std::vector<Tier> other_tiers();

void check_integer(Report& report);
void check_table(Report& report);
void check_attention(Report& report);
void check_rows(Report& report);
void check_solve(Report& report);
void check_gram(Report& report);

}  // namespace whet::check
