// Attention of a few queries to the keys and values of one head, page by page.
#pragma once

#include <cstddef>

#include "attention/pool.h"

namespace whet {

// Queries of consecutive tokens of one sequence, of all heads that share keys. They stand in one
// page, their own; row r is head r % group of token r / group.
struct Queries {
  const float* q;  // first head of the first token
  int q_stride;    // from token to token [float]
  int tokens, group, dim;
  int position;  // of the first token
  int window;    // positions seen, itself included; 0 for all
  float scale;
  float cap;  // 0 for none

  int rows() const { return tokens * group; }
};

// What attention to some of the keys gave, a row of `padded(dim)` channels for each query:
// the sum of exp(s - best)·v, the sum of exp(s - best), and the largest s.
struct Partial {
  float* mix;
  float* mass;
  float* best;
};

inline size_t partial_floats(int rows, int dim) {
  return static_cast<size_t>(rows) * (static_cast<size_t>(padded(dim)) + 2);
}

inline Partial partial_at(float* memory, int rows, int dim) {
  const size_t mix = static_cast<size_t>(rows) * padded(dim);
  return {memory, memory + mix, memory + mix + rows};
}

struct Attention {
  // Writes a token's keys and values at a place of a page, rounded to its kind (not kv4, kv2).
  void (*put)(Kind kind, int dim, const float* k, const float* v, int place, Page page);
  // Codes a full page of bf16 as kv4 or kv2.
  void (*settle)(Kind kind, int dim, Page from, Page to);
  // Bytes of scratch for so many rows.
  size_t (*scratch)(int rows, int dim);
  // Writes queries into scratch, once for all pages of a kind (kv4 and kv2 may be mixed with bf16).
  void (*begin)(const Queries& queries, Kind kind, void* scratch);
  // Takes in one page whose first position is `first`.
  void (*page)(const Queries& queries, Kind kind, Page page, int first, void* scratch,
               Partial into);
  void (*clear)(int rows, int dim, Partial partial);
  void (*merge)(int rows, int dim, Partial total, Partial more);
  // Divides by the mass; the heads of a token lie side by side.
  void (*finish)(const Queries& queries, Partial total, float* out, int out_stride);
};

const Attention& attention_generic();
const Attention& attention_avx2();
namespace avx512 {
const Attention& attention();
}
namespace avx512bf16 {
const Attention& attention();
}
const Attention& attention_neon();

}  // namespace whet
