// Operators that write and read the cache of keys and values.
#pragma once

#include <atomic>

#include "plan/operators.h"
#include "plan/step.h"

namespace whet {

// Keys, turned by their position if there are `angles`, and values into the pages of a layer.
struct Store final : Operator {
  const Pool* pool = nullptr;
  const Angles* angles = nullptr;
  int layer = 0;
  Place k, v;
  void run(const Step& step, int phase, int thread, int threads) override;
};

// Attention of each token to what its sequence has stored, itself included.
//
// The context is read in stretches that begin at fixed positions, each with sums of its own, which
// are merged in their order. Where the pieces of a step are few, stretches are shared out among
// threads: the sums are the same.
// Law: what a token gets depends on its sequence alone, bit for bit.
struct Attend final : Operator {
  const Pool* pool = nullptr;
  int layer = 0, heads = 0, window = 0;
  int stretch = kPage;  // positions, a multiple of a page
  int longest = 0;      // positions of a sequence
  int piece_rows = 0;   // the most queries of a piece
  size_t kernel_bytes = 0;  // scratch of the kernels for so many
  float scale = 1.0f, cap = 0.0f;
  Place q, out;

  int phases(const Step& step) const override;
  void run(const Step& step, int phase, int thread, int threads) override;
  void reset() override { next_.store(0, std::memory_order_relaxed); }
  size_t scratch_bytes(int threads) override;

 private:
  bool split(const Step& step) const;
  int stretches(const Piece& piece) const { return piece.position / stretch + 1; }
  int group() const { return heads / pool->geometry().heads; }
  Queries queries(const Step& step, const Piece& piece, int head) const;
  void walk(const Step& step, const Piece& piece, int head, int number, const Queries& queries,
            void* scratch, Partial into) const;
  void answer(const Step& step, int unit, std::byte* mine) const;
  void answer_part(const Step& step, int unit, std::byte* mine) const;
  void merge_parts(const Step& step, int thread, int threads) const;
  void keep(const Step& step, int thread, int threads) const;
  size_t own_bytes() const;
  size_t partial_bytes() const;

  std::atomic<int> next_{0};
};

}  // namespace whet
