// A planned graph that runs: operators over an arena, by one team of threads.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "attention/attend.h"
#include "attention/pool.h"
#include "base/team.h"
#include "plan/attention_operators.h"
#include "plan/linear_operators.h"
#include "plan/operators.h"
#include "plan/step.h"

namespace whet {

// Memory that is reserved at once and comes when touched, zero at first.
class Reserve {
 public:
  explicit Reserve(size_t bytes);
  ~Reserve();
  Reserve(const Reserve&) = delete;
  Reserve& operator=(const Reserve&) = delete;
  std::byte* data() const { return memory_; }
  size_t size() const { return bytes_; }

 private:
  size_t bytes_;
  std::byte* memory_;
};

struct Limits {
  int tokens;     // of a step
  int wanted;     // rows of logits computed at once
  int sequences;  // of a step
  int longest;    // positions of a sequence
  int vocab;
};

// Operators are added in their order, those on wanted rows last; then `seal`, then any number of
// steps. A step allocates nothing and takes no lock: the team enters once, with a barrier after
// every phase of an operator.
class Program {
 public:
  Program(int threads, Tier tier, const Limits& limits, size_t arena, std::shared_ptr<Pool> pool);

  template <class Op>
  Op& add(std::unique_ptr<Op> op, bool wanted = false) {
    op->wanted = wanted;
    Op& added = *op;
    (wanted ? tail_ : body_).push_back(std::move(op));
    return added;
  }
  void seal(Place logits, int group);

  // The caller has checked tokens, positions and pages. Writes a row of logits for each wanted row.
  struct Asked {
    const int32_t* tokens;
    int token_count;
    const Sequence* sequences;
    int sequence_count;
    const int32_t* wanted;
    int wanted_count;
    float* logits;
  };
  void step(const Asked& asked);

  // Seconds that each operator has taken since the last call, summed over steps; 0 if not timed.
  void time(bool on);
  std::vector<double> seconds() const;

  const Limits& limits() const { return limits_; }
  const Pool& pool() const { return *pool_; }
  const Attention& attention() const { return *attention_; }
  int threads() const { return team_.size(); }
  size_t arena_bytes() const { return arena_.size(); }
  size_t scratch_bytes() const { return scratch_ ? scratch_->size() : 0; }

 private:
  using Operators = std::vector<std::unique_ptr<Operator>>;
  void lay_out(const Asked& asked);
  void lay_out(const Sequence& sequence, int number, int* staged);
  void perform(const Operators& operators, const Step& step, int thread, double* spent);
  void work(const Asked& asked, int thread);

  Team team_;
  const Limits limits_;
  std::shared_ptr<Pool> pool_;
  const Rows* rows_;
  const Attention* attention_;
  Reserve arena_;
  std::unique_ptr<Reserve> scratch_;
  Operators body_, tail_;
  Place logits_;
  int piece_tokens_ = 1;
  bool timed_ = false;
  std::vector<double> spent_;  // of each operator [s]
  std::vector<int32_t> positions_;
  std::vector<Run> runs_;
  std::vector<Piece> pieces_;
};

const Rows& rows_of(Tier tier);
const Attention& attention_of(Tier tier);

// How many tokens of a page have their queries answered together, where `group` heads share keys.
int piece_tokens(int group);
// Stretches of the context whose sums are kept apart, for sequences of so many positions.
int stretch_of(int longest);

}  // namespace whet
