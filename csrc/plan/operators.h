// Operators on rows: embedding, norms, rope, gates and the rest.
#pragma once

#include <vector>

#include "plan/step.h"
#include "plan/table.h"

namespace whet {

enum class NormKind : int { rms = 0, layer = 1 };

// A row of a table for each token, times `scale`, plus row `offset` + position of learned positions.
struct Embed final : Operator {
  Vectors table, positions;
  bool learned = false;
  int offset = 0;
  float scale = 1.0f;
  Place out;
  void run(const Step& step, int phase, int thread, int threads) override;
};

// Each of `heads` pieces of a row, normalised; first plus `addend`, the sum of which goes to `sum`.
struct Norm final : Operator {
  NormKind kind = NormKind::rms;
  float eps = 0.0f;
  std::vector<float> gain, bias;  // may be empty
  int heads = 1, width = 0;       // of one piece
  bool added = false;
  Place x, addend, sum, out;
  void run(const Step& step, int phase, int thread, int threads) override;
};

// Cosines and sines of the angles of each row, made at the beginning of a step.
struct Angles final : Operator {
  std::vector<float> frequencies;  // [radian / token]
  float gain = 1.0f;
  std::vector<float> cosines, sines;  // a row of frequencies.size() for each token
  void run(const Step& step, int phase, int thread, int threads) override;
};

// Heads turned by their position, in place.
struct Rope final : Operator {
  const Angles* angles = nullptr;
  int heads = 0, dim = 0;
  Place x;
  void run(const Step& step, int phase, int thread, int threads) override;
};

// One of the operators that take each number of a row alone.
struct Pointwise final : Operator {
  enum class Kind { add, scale, cap, activate, gate, copy } kind = Kind::add;
  Nonlinearity nonlinearity = Nonlinearity::silu;
  float factor = 1.0f;
  int width = 0;
  Place a, b, out;
  void run(const Step& step, int phase, int thread, int threads) override;
};

// The wanted rows, one after the other.
struct Last final : Operator {
  int width = 0;
  Place x, out;
  void run(const Step& step, int phase, int thread, int threads) override;
};

}  // namespace whet
