// Scores of one query and one page to weights, by a running maximum (arXiv:1805.02867).
#include "attention/attend.h"
#include "ops/vector.h"

namespace whet {
namespace {

// The positions of a page that a query sees.
struct Seen {
  int low, high;
  bool none() const { return low >= high; }
};

inline Seen seen(const Queries& queries, int row, int first) {
  const int position = queries.position + row / queries.group;
  const int high = position + 1 - first;
  const int low = queries.window > 0 ? high - queries.window : 0;
  return {low > 0 ? low : 0, high < kPage ? high : kPage};
}

inline Vector lanes_from(int start) {
  Vector v;
  for (int i = 0; i < kLanes; ++i) v[i] = static_cast<float>(start + i);
  return v;
}

// `scores` of the positions of a page become exp(s - best); returns what earlier sums are
// multiplied by. `scales`: of the codes of each position.
inline float weighed(const Queries& queries, float* scores, Seen seen, Scales scales, float* best,
                     float* mass) {
  Vector top = all(-INFINITY);
  const bool masked = seen.low > 0 || seen.high < kPage;
  for (int j = 0; j < kPage; j += kLanes) {
    Vector s = load(scores + j);
    if (scales.keys != nullptr) s = s * load(scales.keys + j);
    s = s * queries.scale;
    if (queries.cap > 0.0f) s = queries.cap * tangent(s / queries.cap);
    if (masked) {
      const Vector place = lanes_from(j);
      s = place >= static_cast<float>(seen.low) ? s : all(-INFINITY);
      s = place < static_cast<float>(seen.high) ? s : all(-INFINITY);
    }
    store(scores + j, s);
    top = larger(top, s);
  }
  const float peak = largest(top);
  const float fresh = peak > *best ? peak : *best;
  const float kept = fresh == *best ? 1.0f : exponential(all(*best - fresh))[0];
  Vector sum = {};
  for (int j = 0; j < kPage; j += kLanes) {
    const Vector weight = exponential(load(scores + j) - fresh);
    sum = sum + weight;
    store(scores + j, scales.values == nullptr ? weight : weight * load(scales.values + j));
  }
  *mass = *mass * kept + total(sum);
  *best = fresh;
  return kept;
}

void clear(int rows, int dim, Partial partial) {
  const size_t count = static_cast<size_t>(rows) * padded(dim);
  for (size_t i = 0; i < count; ++i) partial.mix[i] = 0.0f;
  for (int row = 0; row < rows; ++row) partial.mass[row] = 0.0f;
  for (int row = 0; row < rows; ++row) partial.best[row] = -INFINITY;
}

void merge(int rows, int dim, Partial total, Partial more) {
  const int width = padded(dim);
  for (int row = 0; row < rows; ++row) {
    if (more.best[row] == -INFINITY) continue;
    const float best = more.best[row] > total.best[row] ? more.best[row] : total.best[row];
    const float a = exponential(all(total.best[row] - best))[0];
    const float b = exponential(all(more.best[row] - best))[0];
    float* const mine = total.mix + static_cast<size_t>(row) * width;
    const float* const theirs = more.mix + static_cast<size_t>(row) * width;
    for (int c = 0; c < width; c += kLanes) store(mine + c, fused(load(mine + c), all(a), load(theirs + c) * b));
    total.mass[row] = total.mass[row] * a + more.mass[row] * b;
    total.best[row] = best;
  }
}

void finish(const Queries& queries, Partial total, float* out, int out_stride) {
  const int width = padded(queries.dim);
  for (int row = 0; row < queries.rows(); ++row) {
    const float inverse = 1.0f / total.mass[row];
    float* const to = out + static_cast<size_t>(row / queries.group) * out_stride +
                      static_cast<size_t>(row % queries.group) * queries.dim;
    const float* const mix = total.mix + static_cast<size_t>(row) * width;
    for (int c = 0; c < queries.dim; ++c) to[c] = mix[c] * inverse;
  }
}

}  // namespace
}  // namespace whet
