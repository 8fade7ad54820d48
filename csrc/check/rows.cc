// Operators on rows of every tier are near to the generic ones, at widths about vectors.
#include <cmath>
#include <functional>

#include "base/half.h"
#include "check/check.h"
#include "ops/rows.h"
#include "plan/program.h"

namespace whet::check {
namespace {

constexpr int kWidths[] = {1, 3, 4, 5, 7, 8, 15, 16, 17, 31, 64, 65, 257, 1031};

// What an operator makes of a row, of others beside it, and of numbers as they are stored.
using Operator = std::function<void(const Rows&, const std::vector<float>& x,
                                    const std::vector<float>& y, int width, float* out)>;
struct Named {
  std::string name;
  float bound;  // relative to the largest number
  Operator run;
};

std::vector<Named> nonlinear() {
  std::vector<Named> found;
  for (int kind = 0; kind < 4; ++kind) {
    const auto chosen = static_cast<Nonlinearity>(kind);
    found.push_back({"activate " + std::to_string(kind), 1e-6f,
                     [=](const Rows& rows, const auto& x, const auto&, int width, float* out) {
                       rows.activate(chosen, x.data(), width, out);
                     }});
    found.push_back({"gate " + std::to_string(kind), 1e-5f,
                     [=](const Rows& rows, const auto& x, const auto& y, int width, float* out) {
                       rows.gate(chosen, x.data(), y.data(), width, out);
                     }});
  }
  return found;
}

std::vector<Named> linear() {
  return {
      {"add", 0,
       [](const Rows& rows, const auto& x, const auto& y, int width, float* out) {
         rows.add(x.data(), y.data(), width, out);
       }},
      {"scale", 0,
       [](const Rows& rows, const auto& x, const auto&, int width, float* out) {
         rows.scale(x.data(), 0.3f, width, out);
       }},
      {"add_scaled", 0,
       [](const Rows& rows, const auto& x, const auto&, int width, float* out) {
         rows.add_scaled(x.data(), 0.3f, width, out);
       }},
      {"cap", 1e-6f,
       [](const Rows& rows, const auto& x, const auto&, int width, float* out) {
         rows.cap(x.data(), 0.7f, width, out);
       }},
      {"turn", 0,
       [](const Rows& rows, const auto& x, const auto& y, int width, float* out) {
         std::copy(x.begin(), x.begin() + width, out);
         rows.turn(y.data(), x.data(), width / 2, out);
       }},
      {"dot", 1e-5f,
       [](const Rows& rows, const auto& x, const auto& y, int width, float* out) {
         out[0] = rows.dot(x.data(), y.data(), width);
       }},
      {"softmax", 1e-6f, [](const Rows& rows, const auto& x, const auto&, int width, float* out) {
         std::copy(x.begin(), x.begin() + width, out);
         rows.softmax(out, width);
       }}};
}

std::vector<Named> norms() {
  return {{"rms", 1e-5f,
           [](const Rows& rows, const auto& x, const auto& y, int width, float* out) {
             rows.rms(x.data(), y.data(), 1e-5f, width, out);
           }},
          {"layer", 1e-4f,
           [](const Rows& rows, const auto& x, const auto& y, int width, float* out) {
             rows.layer(x.data(), y.data(), x.data(), 1e-2f, width, out);
           }},
          {"layer, bare", 1e-4f,
           [](const Rows& rows, const auto& x, const auto&, int width, float* out) {
             rows.layer(x.data(), nullptr, nullptr, 1e-2f, width, out);
           }}};
}

std::vector<Named> widenings() {
  std::vector<Named> found;
  for (int number = 1; number < 3; ++number) {
    found.push_back({"widen " + std::to_string(number), 0,
                     [=](const Rows& rows, const auto& x, const auto&, int width, float* out) {
                       std::vector<uint16_t> halves;
                       for (int i = 0; i < width; ++i) {
                         halves.push_back(number == 1 ? f32_to_f16(x[i]) : f32_to_bf16(x[i]));
                       }
                       rows.widen(static_cast<Number>(number), halves.data(), width, out);
                     }});
  }
  return found;
}

void compare(Report& report, const Named& each, int width, Chance& chance) {
  std::vector<float> x = chance.numbers(width, 4), y = chance.numbers(width, 4);
  if (width > 16 && each.bound > 0) x[3] = 120, x[9] = -120, x[width - 1] = 0;
  std::vector<float> expected(width);
  each.run(rows_of(Tier::generic), x, y, width, expected.data());
  float most = 1;
  for (float number : expected) most = std::fmax(most, std::fabs(number));
  for (Tier tier : other_tiers()) {
    std::vector<float> found(width);
    each.run(rows_of(tier), x, y, width, found.data());
    report.near("rows/" + std::string(tier_name(tier)) + " " + each.name + " width " +
                    std::to_string(width),
                found, expected, each.bound * most);
  }
}

}  // namespace

void check_rows(Report& report) {
  Chance chance(4);
  for (const auto& some : {linear(), nonlinear(), norms(), widenings()}) {
    for (const Named& each : some) {
      for (int width : kWidths) compare(report, each, width, chance);
    }
  }
}

}  // namespace whet::check
