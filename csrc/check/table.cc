// Table kernels of every tier are as near to the generic ones as their rounding of levels allows.
#include <cmath>

#include "base/half.h"
#include "check/weights.h"

namespace whet::check {
namespace {

constexpr struct {
  int rows, cols;
} kShapes[] = {{1, 1}, {15, 7}, {16, 64}, {17, 66}, {33, 300}};  // about tiles and blocks
constexpr int kTokens[] = {1, 2, 3, 4, 5, 13, 25};
constexpr int kMostTokens = 25;

Format format_of(Element element, int bits, int group, Scale scale) {
  Format format;
  format.element = element;
  format.bits = bits;
  format.group = group;
  format.scale = scale;
  return format;
}

std::vector<Format> formats() {
  std::vector<Format> found;
  for (int bits = 2; bits <= 8; ++bits) {
    found.push_back(format_of(Element::quantile, bits, 40, Scale::bf16));
    found.push_back(format_of(Element::minifloat, bits, 32, Scale::e8m0));
    found.push_back(format_of(Element::log, bits, kTensor, Scale::f32));
    found.push_back(format_of(Element::power_sum, bits, 16, Scale::e4m3));
    found.push_back(format_of(Element::learned, bits, kChannel, Scale::f16));
    found.push_back(format_of(Element::learned, bits, 64, Scale::bf16));
    found.push_back(format_of(Element::learned, bits, 32, Scale::bf16));
    found.back().shared = true;
    for (int group : {32, 10, kChannel, kTensor}) {
      found.push_back(format_of(Element::integer, bits, group, Scale::bf16));
      found.back().affine = true;
    }
  }
  for (int exponent : {8, 5}) {
    found.push_back(format_of(Element::plain, 16, kChannel, Scale::none));
    found.back().exponent = exponent;
  }
  found.push_back(format_of(Element::plain, 32, kChannel, Scale::none));
  found.back().exponent = 8;
  return found;
}

// Σ |W[r,c]·x[t,c]| for each token and row, W by the products of the inputs one by one.
std::vector<float> magnitudes(Bytes layout, const std::vector<float>& x, int rows, int cols) {
  std::vector<float> units(static_cast<std::size_t>(cols) * cols);
  for (int c = 0; c < cols; ++c) units[static_cast<std::size_t>(c) * cols + c] = 1;
  const std::vector<float> dense = product(layout, Tier::generic, units, cols);
  std::vector<float> found;
  for (int t = 0; t < kMostTokens; ++t) {
    for (int r = 0; r < rows; ++r) {
      float sum = 0;
      for (int c = 0; c < cols; ++c) sum += std::fabs(dense[c * rows + r] * x[t * cols + c]);
      found.push_back(sum);
    }
  }
  return found;
}

// What an affine weight's products are rounded to: the sum of the activations enters with the
// middle of the codes.
float rounding_of(Tier tier, const Format& format) {
  const float levels = has_avx512(tier) ? 1e-5f : 2e-6f;  // there a level is two bf16 numbers
  return format.affine ? 64 * levels : levels;
}

void compare(Report& report, const Random& weight, Tier tier, Chance& chance) {
  const Aligned layout = pack(weight.planes(), tier, Mode::bf16);
  const std::size_t count = static_cast<std::size_t>(kMostTokens) * weight.cols;
  const std::vector<float> x = chance.numbers(count);
  const std::vector<float> twin = product(bytes_of(layout), Tier::generic, x, kMostTokens);
  std::vector<float> bounds = magnitudes(bytes_of(layout), x, weight.rows, weight.cols);
  for (float& each : bounds) each = each * rounding_of(tier, weight.format) + 1e-30f;
  const std::vector<float> whole = product(bytes_of(layout), tier, x, kMostTokens, 2);
  const std::string name = std::string("table/") + tier_name(tier) + " " + weight.name();
  report.near(name, whole, twin, bounds);
  for (int tokens : kTokens) {
    const std::vector<float> expected(whole.begin(), whole.begin() + tokens * weight.rows);
    report.same(name + ", tokens " + std::to_string(tokens),
                product(bytes_of(layout), tier, x, tokens), expected);
  }
}

}  // namespace

void check_table(Report& report) {
  Chance chance(2);
  for (const Format& format : formats()) {
    for (const auto& shape : kShapes) {
      const Random weight(format, shape.rows, shape.cols, chance);
      for (Tier tier : other_tiers()) compare(report, weight, tier, chance);
    }
  }
}

}  // namespace whet::check
