#include "plan/operators.h"

#include <cmath>
#include <cstring>

namespace whet {
namespace {

constexpr int kGrain = 1024;  // numbers of a row that are worth a thread

// Cuts rows of `width` numbers into equal parts for threads: by rows, or one row by columns.
template <class F>
void spread(int rows, int width, int thread, int threads, F&& f) {
  if (rows >= threads || width < 2 * kGrain) {
    const Share mine = share(rows, thread, threads);
    for (int row = mine.begin; row < mine.end; ++row) f(row, 0, width);
    return;
  }
  const Share lines = share((width + 15) / 16, thread, threads);
  const int begin = lines.begin * 16, end = lines.end * 16 < width ? lines.end * 16 : width;
  for (int row = 0; row < rows && begin < end; ++row) f(row, begin, end - begin);
}

}  // namespace

void Embed::run(const Step& step, int, int thread, int threads) {
  const Share mine = share(step.token_count, thread, threads);
  for (int row = mine.begin; row < mine.end; ++row) {
    float* const to = step.at(out, row);
    table.row(*step.rows, step.tokens[row], to);
    if (scale != 1.0f) step.rows->scale(to, scale, table.width, to);
    if (!learned) continue;
    const Number number = positions.number;
    const size_t index = static_cast<size_t>(step.positions[row] + offset);
    const size_t bytes = number == Number::f32 ? 4 : 2;
    float piece[256];
    for (int c = 0; c < table.width; c += 256) {
      const int count = table.width - c < 256 ? table.width - c : 256;
      step.rows->widen(number, positions.plain + (index * table.width + c) * bytes, count, piece);
      step.rows->add(to + c, piece, count, to + c);
    }
  }
}

void Norm::run(const Step& step, int, int thread, int threads) {
  const Share mine = share(count(step) * heads, thread, threads);
  const float* const g = gain.empty() ? nullptr : gain.data();
  const float* const b = bias.empty() ? nullptr : bias.data();
  for (int i = mine.begin; i < mine.end; ++i) {
    const int row = i / heads, first = i % heads * width;
    const float* from = step.at(x, row) + first;
    if (added) {
      float* const both = step.at(sum, row) + first;
      step.rows->add(from, step.at(addend, row) + first, width, both);
      from = both;
    }
    float* const to = step.at(out, row) + first;
    if (kind == NormKind::rms)
      step.rows->rms(from, g, eps, width, to);
    else
      step.rows->layer(from, g, b, eps, width, to);
  }
}

// The angle is rounded to float32 as references do; its cosine is that of the rounded angle.
void Angles::run(const Step& step, int, int thread, int threads) {
  const int pairs = static_cast<int>(frequencies.size());
  const Share mine = share(step.token_count, thread, threads);
  for (int row = mine.begin; row < mine.end; ++row)
    for (int i = 0; i < pairs; ++i) {
      const float angle = static_cast<float>(step.positions[row]) * frequencies[i];
      cosines[static_cast<size_t>(row) * pairs + i] = static_cast<float>(std::cos(static_cast<double>(angle))) * gain;
      sines[static_cast<size_t>(row) * pairs + i] = static_cast<float>(std::sin(static_cast<double>(angle))) * gain;
    }
}

void Rope::run(const Step& step, int, int thread, int threads) {
  const int pairs = static_cast<int>(angles->frequencies.size());
  const Share mine = share(step.token_count * heads, thread, threads);
  for (int i = mine.begin; i < mine.end; ++i) {
    const size_t row = static_cast<size_t>(i / heads);
    step.rows->turn(angles->cosines.data() + row * pairs, angles->sines.data() + row * pairs, pairs,
                    step.at(x, i / heads) + static_cast<size_t>(i % heads) * dim);
  }
}

void Pointwise::run(const Step& step, int, int thread, int threads) {
  spread(count(step), width, thread, threads, [&](int row, int first, int size) {
    const float* const x = step.at(a, row) + first;
    float* const to = step.at(out, row) + first;
    switch (kind) {
      case Kind::add: return step.rows->add(x, step.at(b, row) + first, size, to);
      case Kind::scale: return step.rows->scale(x, factor, size, to);
      case Kind::cap: return step.rows->cap(x, factor, size, to);
      case Kind::activate: return step.rows->activate(nonlinearity, x, size, to);
      case Kind::gate: return step.rows->gate(nonlinearity, x, step.at(b, row) + first, size, to);
      case Kind::copy: std::memmove(to, x, sizeof(float) * static_cast<size_t>(size));
    }
  });
}

void Last::run(const Step& step, int, int thread, int threads) {
  spread(step.wanted_count, width, thread, threads, [&](int row, int first, int size) {
    std::memcpy(step.at(out, row) + first, step.at(x, step.wanted[row]) + first,
                sizeof(float) * static_cast<size_t>(size));
  });
}

}  // namespace whet
