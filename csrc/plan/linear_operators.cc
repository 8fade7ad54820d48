#include "plan/linear_operators.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/aligned.h"

namespace whet {
namespace {

constexpr float kFloat8Top = 448.0f;
constexpr float kWideTop = 32639.0f;  // of int16: what two halves of int8 reach
constexpr float kLeast = 1.1920929e-07f;  // stands in for the scale of zeros

// The nearest number of fp8 (e4m3), ties to even.
float float8(float x) {
  const float kept = std::clamp(x, -kFloat8Top, kFloat8Top);
  if (kept == 0.0f) return kept;
  const int exponent = std::max(std::ilogb(kept), -6);
  const float unit = std::ldexp(1.0f, exponent - 3);
  return std::nearbyint(kept / unit) * unit;
}

struct Grid {
  float step, zero;
};

// From the least code to the greatest.
float width_of(Round::Element element) {
  if (element == Round::Element::int16) return 2.0f * kWideTop;
  return element == Round::Element::int4 ? 15.0f : 255.0f;
}

// The scale, and zero point, of numbers whose range holds zero.
Grid grid_of(const Round& op, const float* x, int count) {
  if (op.scale != 0.0f) return {op.scale, op.zero};
  float low = 0.0f, high = 0.0f;
  for (int i = 0; i < count; ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
  }
  const float most = std::max(-low, high);
  if (op.element == Round::Element::fp8) return {most == 0.0f ? kLeast : most / kFloat8Top, 0.0f};
  const float width = width_of(op.element);
  if (!op.affine) return {most == 0.0f ? kLeast : most / (width / 2.0f), 0.0f};
  const float step = high == low ? kLeast : (high - low) / width;
  const float bottom = -(width + 1.0f) / 2.0f;
  return {step, std::nearbyint(std::clamp(bottom - low / step, bottom, bottom + width))};
}

void rounded(const Round& op, const float* x, int count, float* out) {
  const Grid grid = grid_of(op, x, count);
  const bool wide = op.element == Round::Element::int16;
  const float half = op.element == Round::Element::int4 ? 8.0f : 128.0f;
  const float least = wide ? -kWideTop : -half, most = wide ? kWideTop : half - 1.0f;
  for (int i = 0; i < count; ++i) {
    const float ratio = x[i] / grid.step;
    if (op.element == Round::Element::fp8)
      out[i] = float8(ratio) * grid.step;
    else
      out[i] = (std::nearbyint(std::clamp(ratio + grid.zero, least, most)) - grid.zero) * grid.step;
  }
}

// Scratch of a product with up to `most` rows. Each thread has that much of its own: no barrier
// parts products that follow each other, and how they share scratch depends on matrix and rows.
size_t scratch_of(const Matrix& matrix, int most, int threads) {
  size_t needed = matrix.scratch_bytes(most, threads);
  for (int rows = 1; rows < most; rows *= 2)
    needed = std::max(needed, matrix.scratch_bytes(rows, threads));
  return round_up(needed, kLine);
}

}  // namespace

void Prepare::run(const Step& step, int, int thread, int threads) {
  matrix->prepare(step.at(x), x.stride, count(step), step.arena + input, thread, threads);
}

void Round::run(const Step& step, int, int thread, int threads) {
  const Share mine = share(count(step), thread, threads);
  for (int row = mine.begin; row < mine.end; ++row)
    for (int c = 0; c < width; c += group)
      rounded(*this, step.at(x, row) + c, std::min(group, width - c), step.at(out, row) + c);
}

void Linear::run(const Step& step, int phase, int thread, int threads) {
  const int rows = count(step);
  if (phase + 1 < phases(step)) {
    const Share mine = share(rows, thread, threads);
    for (int row = mine.begin; row < mine.end; ++row) {
      float* const to = step.at(out, row);
      if (accumulate)
        step.rows->add(to, bias.data(), static_cast<int>(bias.size()), to);
      else
        std::memcpy(to, bias.data(), sizeof(float) * bias.size());
    }
    return;
  }
  std::byte* const own = step.scratch + own_ * static_cast<size_t>(thread);
  for (const Output& each : outputs)
    each.matrix->multiply(step.arena + each.input, rows, step.at(out) + each.column, out.stride,
                          accumulate || !bias.empty(), own, thread, threads);
}

size_t Linear::scratch_bytes(int threads) {
  size_t needed = 0;
  for (const Output& each : outputs)
    needed = std::max(needed, scratch_of(*each.matrix, most, threads));
  own_ = needed;
  return needed * static_cast<size_t>(threads);
}

// Memory of a mixture within the scratch of its operator.
struct Experts::Room {
  float* gathered;  // [ordered row, width], later what goes down
  float* middle;    // [ordered row, 2 ffn]: gate and up
  std::byte* inputs;
  std::byte* scratch;
  size_t input_step;  // of an ordered row
};

namespace {

// Bytes that the prepared input of one row takes; that of more rows takes no more for each.
size_t one_input(const Matrix& matrix) { return round_up(matrix.input_bytes(1), kLine); }

}  // namespace

Experts::Room Experts::room(const Step& step, int thread) const {
  const size_t rows = static_cast<size_t>(most) * active;
  Room found{};
  std::byte* at = step.scratch;
  const auto take = [&at](size_t bytes) {
    std::byte* const here = at;
    at += round_up(bytes, kLine);
    return here;
  };
  found.gathered = reinterpret_cast<float*>(take(sizeof(float) * rows * width));
  found.middle = reinterpret_cast<float*>(take(sizeof(float) * rows * 2 * ffn));
  found.input_step = std::max(one_input(*experts[0].up), one_input(*experts[0].down));
  found.inputs = take(rows * found.input_step + 2 * kLine);
  found.scratch = at + own_ * static_cast<size_t>(thread);
  return found;
}

size_t Experts::product_bytes(int threads) const {
  return std::max(scratch_of(*experts[0].up, most, threads),
                  scratch_of(*experts[0].down, most, threads));
}

size_t Experts::scratch_bytes(int threads) {
  own_ = product_bytes(threads);
  const size_t rows = static_cast<size_t>(most) * active;
  const size_t input = std::max(one_input(*experts[0].up), one_input(*experts[0].down));
  return sizeof(float) * rows * (static_cast<size_t>(width) + 2 * ffn) + rows * input +
         own_ * static_cast<size_t>(threads) + 8 * kLine;
}

void Experts::resize() {
  const size_t rows = static_cast<size_t>(most) * active;
  share_.resize(rows);
  chosen_.resize(rows);
  place_.resize(rows);
  source_.resize(rows);
  first_.resize(experts.size() + 1);
}

// The scores of each row, and its best experts; of equal ones the first.
void Experts::route(const Step& step, int thread, int threads) {
  const int total = static_cast<int>(experts.size());
  constexpr int kMost = 1024;
  float scores[kMost];
  const Share mine = share(count(step), thread, threads);
  for (int row = mine.begin; row < mine.end; ++row) {
    for (int e = 0; e < total; ++e)
      scores[e] = step.rows->dot(step.at(x, row), router.data() + static_cast<size_t>(e) * width, width);
    step.rows->softmax(scores, total);
    int* const chosen = chosen_.data() + static_cast<size_t>(row) * active;
    float* const shares = share_.data() + static_cast<size_t>(row) * active;
    float taken[kMost];
    std::copy(scores, scores + total, taken);
    for (int i = 0; i < active; ++i) {
      chosen[i] = static_cast<int>(std::max_element(taken, taken + total) - taken);
      taken[chosen[i]] = -1.0f;
    }
    std::sort(chosen, chosen + active);
    float mass = 0.0f;
    for (int i = 0; i < active; ++i) mass += scores[chosen[i]];
    for (int i = 0; i < active; ++i) shares[i] = normalize ? scores[chosen[i]] / mass : scores[chosen[i]];
  }
}

void Experts::order(const Step& step) {
  const int pairs = count(step) * active;
  std::fill(first_.begin(), first_.end(), 0);
  for (int i = 0; i < pairs; ++i) ++first_[chosen_[i] + 1];
  for (size_t e = 1; e < first_.size(); ++e) first_[e] += first_[e - 1];
  for (int i = 0; i < pairs; ++i) {
    place_[i] = first_[chosen_[i]]++;
    source_[place_[i]] = i / active;
  }
  for (size_t e = first_.size() - 1; e > 0; --e) first_[e] = first_[e - 1];
  first_[0] = 0;
}

void Experts::combine(const Step& step, int thread, int threads) {
  const Room mine = room(step, thread);
  const Share rows = share(count(step), thread, threads);
  for (int row = rows.begin; row < rows.end; ++row) {
    float* const to = step.at(out, row);
    std::memset(to, 0, sizeof(float) * static_cast<size_t>(width));
    for (int i = row * active; i < (row + 1) * active; ++i)
      step.rows->add_scaled(mine.gathered + static_cast<size_t>(place_[i]) * width, share_[i], width, to);
  }
}

void Experts::run(const Step& step, int phase, int thread, int threads) {
  const Room mine = room(step, thread);
  const int pairs = count(step) * active, total = static_cast<int>(experts.size());
  // Calls f(expert, its first row, how many) for every expert that has rows.
  const auto each = [&](auto&& f) {
    for (int e = 0; e < total; ++e)
      if (first_[e + 1] > first_[e]) f(experts[e], first_[e], first_[e + 1] - first_[e]);
  };
  const auto input = [&](int first) { return mine.inputs + static_cast<size_t>(first) * mine.input_step; };
  switch (phase) {
    case 0: return route(step, thread, threads);
    case 1:
      if (thread == 0) order(step);
      return;
    case 2: {
      const Share rows = share(pairs, thread, threads);
      for (int i = rows.begin; i < rows.end; ++i)
        std::memcpy(mine.gathered + static_cast<size_t>(i) * width, step.at(x, source_[i]),
                    sizeof(float) * static_cast<size_t>(width));
      return;
    }
    case 3:
      return each([&](const Expert& e, int first, int rows) {
        e.up->prepare(mine.gathered + static_cast<size_t>(first) * width, width, rows, input(first), thread, threads);
      });
    case 4:
      return each([&](const Expert& e, int first, int rows) {
        float* const to = mine.middle + static_cast<size_t>(first) * 2 * ffn;
        if (e.gate != nullptr) e.gate->multiply(input(first), rows, to, 2 * ffn, false, mine.scratch, thread, threads);
        e.up->multiply(input(first), rows, to + ffn, 2 * ffn, false, mine.scratch, thread, threads);
      });
    case 5: {
      const bool gated = experts[0].gate != nullptr;
      const Share rows = share(pairs, thread, threads);
      for (int i = rows.begin; i < rows.end; ++i) {
        float* const row = mine.middle + static_cast<size_t>(i) * 2 * ffn;
        if (gated)
          step.rows->gate(nonlinearity, row, row + ffn, ffn, row);
        else
          step.rows->activate(nonlinearity, row + ffn, ffn, row + ffn);
      }
      return;
    }
    case 6:
      return each([&](const Expert& e, int first, int rows) {
        const float* const from = mine.middle + static_cast<size_t>(first) * 2 * ffn + (e.gate != nullptr ? 0 : ffn);
        e.down->prepare(from, 2 * ffn, rows, input(first), thread, threads);
      });
    case 7:
      return each([&](const Expert& e, int first, int rows) {
        e.down->multiply(input(first), rows, mine.gathered + static_cast<size_t>(first) * width, width, false,
                         mine.scratch, thread, threads);
      });
    default: return combine(step, thread, threads);
  }
}

}  // namespace whet
