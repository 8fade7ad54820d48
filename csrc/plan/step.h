// One step of a program, as its operators see it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "attention/attend.h"
#include "attention/pool.h"
#include "base/cpu.h"
#include "ops/rows.h"

namespace whet {

// Tokens of a sequence that follow those it has stored; they stand in rows `row` and after.
struct Sequence {
  int row, count, start;
  const int32_t* pages;  // of the pool, that of positions 0 to 63 first
  int slot;              // of the page that is not full
};

// The tokens of a step that stand in one page of a sequence.
struct Run {
  int sequence, row, count, position;
  int staged;  // number of its staged page; -1 for the first run, which has the sequence's own
  bool full;   // the page is full after this step
  bool last;   // of its sequence
};

// Tokens of one page whose queries are answered together.
struct Piece {
  int run, row, count, position;
};

// Where rows of float32 lie: the first [byte of the arena], and from one to the next [float].
struct Place {
  size_t offset = 0;
  int stride = 0;
};

struct Step {
  std::byte* arena;
  std::byte* scratch;  // of the operator that runs
  const int32_t* tokens;
  const int32_t* positions;  // of each row
  const Sequence* sequences;
  const Run* runs;
  const Piece* pieces;
  const int32_t* wanted;  // rows whose logits are computed now
  int token_count, run_count, piece_count, wanted_count, threads;
  const Rows* rows;
  const Attention* attention;

  float* at(Place place, int row = 0) const {
    return reinterpret_cast<float*>(arena + place.offset) + static_cast<size_t>(row) * place.stride;
  }
};

// A part of `count` things: which of them thread `thread` of `threads` takes.
struct Share {
  int begin, end;
};

inline Share share(int count, int thread, int threads) {
  const auto cut = [=](int k) { return static_cast<int>(static_cast<int64_t>(count) * k / threads); };
  return {cut(thread), cut(thread + 1)};
}

// Something that a program does. Between phases, and after the last, all threads meet.
class Operator {
 public:
  virtual ~Operator() = default;
  virtual int phases(const Step&) const { return 1; }
  virtual void run(const Step& step, int phase, int thread, int threads) = 0;
  virtual void reset() {}  // before each step
  virtual size_t scratch_bytes(int threads);
  bool wanted = false;  // whether its rows are those whose logits are wanted

 protected:
  int count(const Step& step) const { return wanted ? step.wanted_count : step.token_count; }
};

inline size_t Operator::scratch_bytes(int) { return 0; }

}  // namespace whet
