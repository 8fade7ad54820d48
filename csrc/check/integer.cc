// Integer kernels give the same bits in every tier.
#include <cstring>

#include "check/weights.h"

namespace whet::check {
namespace {

constexpr struct {
  int rows, cols;
} kShapes[] = {{1, 4}, {4, 32}, {15, 36}, {16, 68}, {17, 96}, {33, 516}};  // about tiles and blocks
constexpr int kTokens[] = {1, 2, 3, 4, 5, 9, 17};
constexpr int kMostTokens = 17;

Format format_of(int bits, int group, bool affine, Scale scale) {
  Format format;
  format.bits = bits;
  format.group = group;
  format.affine = affine;
  format.scale = scale;
  return format;
}

std::vector<Format> formats() {
  std::vector<Format> found;
  for (int bits = 2; bits <= 8; ++bits) {
    for (bool affine : {false, true}) {
      for (int group : {32, 64, kChannel}) {
        found.push_back(format_of(bits, group, affine, Scale::bf16));
      }
      found.push_back(format_of(bits, 20, affine, Scale::f16));
      found.push_back(format_of(bits, 48, affine, Scale::f32));
      found.push_back(format_of(bits, kTensor, affine, Scale::f32));
    }
    for (int group : {16, 32, 36, kTensor}) {
      Format shifted = format_of(bits, group, false, Scale::f16);
      shifted.minimum = true;
      found.push_back(shifted);
    }
    for (int group : {4, 36, 100}) found.push_back(format_of(bits, group, true, Scale::e8m0));
  }
  for (int bits : {2, 3, 4}) {
    for (int group : {32, 16, 36, 64, kChannel, kTensor}) {
      found.push_back(format_of(bits, group, false, group == 32 ? Scale::f16 : Scale::f32));
      found.back().element = Element::mapped;
      found.back().shared = true;
    }
  }
  for (int group : {32, 16}) {
    found.push_back(format_of(4, group, false, group == 32 ? Scale::e8m0 : Scale::bf16));
    found.back().element = Element::minifloat;
    found.back().exponent = 2;
  }
  for (int bits : {4, 8}) {
    for (int group : {32, 36, kChannel}) {
      Format sparse = format_of(bits, group, false, Scale::bf16);
      sparse.sparse = true;
      found.push_back(sparse);
    }
  }
  return found;
}

// Activations with tokens of zeros and of the largest codes.
std::vector<float> inputs(int tokens, int cols, Chance& chance) {
  std::vector<float> x = chance.numbers(static_cast<std::size_t>(tokens) * cols);
  for (int c = 0; c < cols && tokens > 2; ++c) {
    x[cols + c] = 0;
    x[2 * cols + c] = -1;
  }
  return x;
}

void compare(Report& report, const Random& weight, Mode mode, Tier tier, Chance& chance) {
  const Planes planes = weight.planes();
  if (kernel_for(planes, tier, mode, nullptr) == nullptr) return;
  const Aligned layout = pack(planes, tier, mode);
  const std::vector<float> x = inputs(kMostTokens, weight.cols, chance);
  const std::vector<float> whole = product(bytes_of(layout), Tier::generic, x, kMostTokens);
  for (int tokens : kTokens) {
    const std::vector<float> expected(whole.begin(), whole.begin() + tokens * weight.rows);
    const std::string name = std::string("integer/") + tier_name(tier) + " mode " +
                             std::to_string(static_cast<int>(mode)) + " " + weight.name() +
                             ", tokens " + std::to_string(tokens);
    report.same(name, product(bytes_of(layout), tier, x, tokens), expected);
  }
  std::vector<float> more = whole;
  for (float& each : more) each = 1.0f + each;
  report.same("accumulated by " + std::string(tier_name(tier)) + " " + weight.name(),
              product(bytes_of(layout), tier, x, kMostTokens, 3, true), more);
}

// The greatest codes, and zero points of 0.
void fill_up(Random& weight) {
  for (std::byte& each : weight.owned["codes"]) each = std::byte{255};
  if (weight.format.affine) {
    for (std::byte& each : weight.owned["zero"]) each = std::byte{0};
  }
}

}  // namespace

void check_integer(Report& report) {
  Chance chance(1);
  for (const Format& format : formats()) {
    for (const auto& shape : kShapes) {
      Random weight(format, shape.rows, shape.cols, chance);
      for (Tier tier : other_tiers()) {
        compare(report, weight, Mode::int8, tier, chance);
        compare(report, weight, Mode::token8, tier, chance);
        compare(report, weight, Mode::int16, tier, chance);
      }
    }
    Random full(format, 16, 128, chance);
    fill_up(full);
    for (Tier tier : other_tiers()) compare(report, full, Mode::token8, tier, chance);
  }
}

}  // namespace whet::check
