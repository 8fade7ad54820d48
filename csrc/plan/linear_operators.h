// Operators that multiply by weights.
#pragma once

#include <vector>

#include "linear/matrix.h"
#include "plan/step.h"

namespace whet {

// The input of matrices that share a key, from rows of float32.
struct Prepare final : Operator {
  const Matrix* matrix = nullptr;
  Place x;
  size_t input = 0;  // where in the arena
  void run(const Step& step, int phase, int thread, int threads) override;
};

// What quantized activations stand for, in float32: for linears whose kernels do not code them so.
struct Round final : Operator {
  enum class Element { int4 = 0, int8 = 1, fp8 = 2, int16 = 3 } element = Element::int8;
  int width = 0, group = 0;  // channels that share a scale
  bool affine = false;
  float scale = 0.0f, zero = 0.0f;  // fixed, unless the scale is 0
  Place x, out;
  void run(const Step& step, int phase, int thread, int threads) override;
};

// Products with matrices whose outputs lie side by side. With a bias, or where it adds to what is
// there, the sum begins with that.
struct Linear final : Operator {
  struct Output {
    const Matrix* matrix;
    size_t input;  // where in the arena
    int column;    // of the first output
  };
  std::vector<Output> outputs;
  std::vector<float> bias;  // of all outputs, or empty
  bool accumulate = false;
  Place out;
  int phases(const Step&) const override { return bias.empty() ? 1 : 2; }
  void run(const Step& step, int phase, int thread, int threads) override;
  size_t scratch_bytes(int threads) override;
  int most = 1;  // rows

 private:
  size_t own_ = 0;  // scratch of a thread [byte]
};

// The sum of each row's `active` experts, weighed by the softmax of their scores.
//
// Rows are put in the order of their experts; then each expert multiplies its own rows.
struct Experts final : Operator {
  struct Expert {
    const Matrix* gate;  // or null: f(up) goes down
    const Matrix* up;
    const Matrix* down;
  };
  std::vector<Expert> experts;
  std::vector<float> router;  // a row of `width` for each expert
  int width = 0, ffn = 0, active = 1, most = 1;
  bool normalize = true;
  Nonlinearity nonlinearity = Nonlinearity::silu;
  Place x, out;

  void resize();  // once all is set
  int phases(const Step&) const override { return 9; }
  void run(const Step& step, int phase, int thread, int threads) override;
  size_t scratch_bytes(int threads) override;

 private:
  struct Room;
  Room room(const Step& step, int thread) const;
  size_t product_bytes(int threads) const;
  void route(const Step& step, int thread, int threads);
  void order(const Step& step);
  void combine(const Step& step, int thread, int threads);
  size_t own_ = 0;  // scratch of a thread for products [byte]
  std::vector<float> share_;   // [row, active]
  std::vector<int> chosen_;    // [row, active]: the experts, ascending
  std::vector<int> place_;     // [row, active]: where among the ordered rows
  std::vector<int> first_;     // of each expert's rows, and the end
  std::vector<int> source_;    // the row of each ordered one
};

}  // namespace whet
