// Attention in float32, of any tier.
#include "attention/tile.inl"
#include "attention/softmax.inl"

namespace whet {
namespace {

// Rows whose sums are held in registers at once.
#if defined(__AVX512F__)
inline constexpr int kRows = 6;
#elif defined(__aarch64__)
inline constexpr int kRows = 4;
#else
inline constexpr int kRows = 2;
#endif
inline constexpr int kColumns = 4;  // vectors

template <int count>
inline void plain_scores(const float* q, int width, const float* keys, float* scores) {
  for (int j = 0; j < kPage; j += kColumns * kLanes) {
    Vector sums[count][kColumns] = {};
    for (int c = 0; c < width; ++c)
      for (int k = 0; k < kColumns; ++k) {
        const Vector key = load(keys + c * kPage + j + k * kLanes);
        for (int r = 0; r < count; ++r) sums[r][k] = fused(all(q[r * width + c]), key, sums[r][k]);
      }
    for (int r = 0; r < count; ++r)
      for (int k = 0; k < kColumns; ++k) store(scores + r * kPage + j + k * kLanes, sums[r][k]);
  }
}

template <int count, int columns>
inline void plain_mix(const float* weights, const float* kept, Seen seen, const float* values,
                      int width, float* mix) {
  Vector sums[count][columns];
  for (int r = 0; r < count; ++r)
    for (int k = 0; k < columns; ++k) sums[r][k] = load(mix + r * width + k * kLanes) * kept[r];
  for (int j = seen.low; j < seen.high; ++j)
    for (int k = 0; k < columns; ++k) {
      const Vector value = load(values + j * width + k * kLanes);
      for (int r = 0; r < count; ++r)
        sums[r][k] = fused(all(weights[r * kPage + j]), value, sums[r][k]);
    }
  for (int r = 0; r < count; ++r)
    for (int k = 0; k < columns; ++k) store(mix + r * width + k * kLanes, sums[r][k]);
}

// What a page does for rows `row` to `row + count`; false if they see nothing of it.
template <int count>
inline bool weights_of(const Queries& queries, int row, int first, Scales scales, Partial into,
                       float* scores, float* kept, Seen* whole) {
  *whole = {kPage, 0};
  for (int r = 0; r < count; ++r) {
    const Seen mine = seen(queries, row + r, first);
    kept[r] = 1.0f;
    if (mine.none()) {
      for (int j = 0; j < kPage; ++j) scores[r * kPage + j] = 0.0f;
      continue;
    }
    kept[r] = weighed(queries, scores + r * kPage, mine, scales, into.best + row + r, into.mass + row + r);
    if (mine.low < whole->low) whole->low = mine.low;
    if (mine.high > whole->high) whole->high = mine.high;
  }
  return !whole->none();
}

template <int count>
void plain_rows(const Queries& queries, int row, int first, Plain tile, Scales scales,
                const float* q, Partial into) {
  const int width = padded(queries.dim);
  float scores[count * kPage], kept[count];
  plain_scores<count>(q + row * width, width, tile.keys, scores);
  Seen whole;
  if (!weights_of<count>(queries, row, first, scales, into, scores, kept, &whole)) return;
  float* const mix = into.mix + static_cast<size_t>(row) * width;
  int c = 0;
  for (; c + kColumns * kLanes <= width; c += kColumns * kLanes)
    plain_mix<count, kColumns>(scores, kept, whole, tile.values + c, width, mix + c);
  for (; c < width; c += kLanes)
    plain_mix<count, 1>(scores, kept, whole, tile.values + c, width, mix + c);
}

// Whether some row from `row` on, of `count`, sees the page.
inline bool any_seen(const Queries& queries, int row, int count, int first) {
  for (int r = row; r < row + count; ++r)
    if (!seen(queries, r, first).none()) return true;
  return false;
}

// Calls f<count>(row) for pieces of the rows, as equal as can be and at most `most` each.
template <int most, class F>
inline void pieces(int rows, F&& f) {
  const int parts = (rows + most - 1) / most;
  int row = 0;
  for (int part = 0; part < parts; ++part) {
    const int count = (rows - row) / (parts - part);
    switch (count) {
      case 1: f.template operator()<1>(row); break;
      case 2: f.template operator()<2>(row); break;
      default:
        if constexpr (most > 2) {
          if (count == 3) f.template operator()<3>(row);
          if (count == 4) f.template operator()<4>(row);
          if (count == 5) f.template operator()<5>(row);
          if (count == 6) f.template operator()<6>(row);
        }
    }
    row += count;
  }
}

inline size_t plain_scratch(int rows, int dim) {
  return sizeof(float) * static_cast<size_t>(padded(dim)) * (static_cast<size_t>(rows) + 2 * kPage);
}

// A row of the queries.
inline const float* query(const Queries& queries, int row) {
  return queries.q + static_cast<size_t>(row / queries.group) * queries.q_stride +
         static_cast<size_t>(row % queries.group) * queries.dim;
}

void plain_begin(const Queries& queries, Kind, void* scratch) {
  const int width = padded(queries.dim);
  auto* q = static_cast<float*>(scratch);
  for (int row = 0; row < queries.rows(); ++row, q += width) {
    const float* const from = query(queries, row);
    for (int c = 0; c < width; ++c) q[c] = c < queries.dim ? from[c] : 0.0f;
  }
}

void plain_page(const Queries& queries, Kind kind, Page page, int first, void* scratch, Partial into) {
  const int width = padded(queries.dim);
  auto* const q = static_cast<float*>(scratch);
  const Plain tile = plain(kind, width, page, q + queries.rows() * width);
  const Scales scales = scales_of(kind, width, page);
  pieces<kRows>(queries.rows(), [&]<int count>(int row) {
    if (any_seen(queries, row, count, first))
      plain_rows<count>(queries, row, first, tile, scales, q, into);
  });
}

}  // namespace
}  // namespace whet
