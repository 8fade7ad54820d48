#include "plan/program.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>

#include "base/aligned.h"

namespace whet {
namespace {

constexpr int kPieceRows = 64;
constexpr int kStretch = 256, kStretches = 32;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Reserve::Reserve(size_t bytes) : bytes_(std::max<size_t>(bytes, kLine)) {
  void* const memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<std::byte*>(memory);
}

Reserve::~Reserve() { munmap(memory_, bytes_); }

const Rows& rows_of(Tier tier) {
#if defined(__x86_64__)
  if (has_avx512(tier)) return rows_avx512();
  if (tier == Tier::avx2) return rows_avx2();
#elif defined(__aarch64__)
  if (tier != Tier::generic) return rows_neon();
#endif
  (void)tier;
  return rows_generic();
}

const Attention& attention_of(Tier tier) {
#if defined(__x86_64__)
  if (tier == Tier::avx512bf16) return avx512bf16::attention();
  if (tier == Tier::avx512) return avx512::attention();
  if (tier == Tier::avx2) return attention_avx2();
#elif defined(__aarch64__)
  if (tier != Tier::generic) return attention_neon();
#endif
  (void)tier;
  return attention_generic();
}

int piece_tokens(int group) {
  int tokens = kPage;
  while (tokens > 1 && tokens * group > kPieceRows) tokens /= 2;
  return tokens;
}

int stretch_of(int longest) {
  const int least = (longest + kStretches - 1) / kStretches;
  return std::max(kStretch, (least + kPage - 1) / kPage * kPage);
}

Program::Program(int threads, Tier tier, const Limits& limits, size_t arena, std::shared_ptr<Pool> pool)
    : team_(threads),
      limits_(limits),
      pool_(std::move(pool)),
      rows_(&rows_of(tier)),
      attention_(&attention_of(tier)),
      arena_(arena) {
  positions_.resize(static_cast<size_t>(limits.tokens));
  runs_.reserve(static_cast<size_t>(limits.tokens));
  pieces_.reserve(static_cast<size_t>(limits.tokens));
}

void Program::seal(Place logits, int group) {
  logits_ = logits;
  piece_tokens_ = piece_tokens(group);
  size_t needed = 0;
  for (const Operators* operators : {&body_, &tail_})
    for (const auto& op : *operators) needed = std::max(needed, op->scratch_bytes(team_.size()));
  scratch_ = std::make_unique<Reserve>(needed);
  spent_.assign(body_.size() + tail_.size() + 1, 0.0);
}

void Program::time(bool on) {
  timed_ = on;
  std::fill(spent_.begin(), spent_.end(), 0.0);
}

std::vector<double> Program::seconds() const { return spent_; }

void Program::lay_out(const Sequence& sequence, int number, int* staged) {
  for (int done = 0; done < sequence.count;) {
    const int position = sequence.start + done;
    const int count = std::min(sequence.count - done, kPage - position % kPage);
    const bool full = (position + count) % kPage == 0;
    const bool last = done + count == sequence.count;
    runs_.push_back({number, sequence.row + done, count, position, done == 0 ? -1 : (*staged)++, full, last});
    for (int i = 0; i < count;) {
      const int size = std::min(count - i, piece_tokens_ - (position + i) % piece_tokens_);
      pieces_.push_back({static_cast<int>(runs_.size()) - 1, sequence.row + done + i, size, position + i});
      i += size;
    }
    done += count;
  }
  for (int i = 0; i < sequence.count; ++i) positions_[sequence.row + i] = sequence.start + i;
}

void Program::lay_out(const Asked& asked) {
  runs_.clear();
  pieces_.clear();
  int staged = 0;
  for (int i = 0; i < asked.sequence_count; ++i) lay_out(asked.sequences[i], i, &staged);
}

void Program::perform(const Operators& operators, const Step& step, int thread, double* spent) {
  double before = timed_ ? now() : 0.0;
  for (const auto& op : operators) {
    const int phases = op->phases(step);
    for (int phase = 0; phase < phases; ++phase) {
      op->run(step, phase, thread, team_.size());
      team_.barrier(thread);
    }
    if (timed_ && thread == 0) {
      const double after = now();
      *spent++ += after - before;
      before = after;
    }
  }
}

void Program::work(const Asked& asked, int thread) {
  Step step{};
  step.arena = arena_.data();
  step.scratch = scratch_->data();
  step.tokens = asked.tokens;
  step.positions = positions_.data();
  step.sequences = asked.sequences;
  step.runs = runs_.data();
  step.pieces = pieces_.data();
  step.token_count = asked.token_count;
  step.run_count = static_cast<int>(runs_.size());
  step.piece_count = static_cast<int>(pieces_.size());
  step.threads = team_.size();
  step.rows = rows_;
  step.attention = attention_;
  perform(body_, step, thread, spent_.data());
  for (int done = 0; done < asked.wanted_count; done += step.wanted_count) {
    step.wanted = asked.wanted + done;
    step.wanted_count = std::min(asked.wanted_count - done, limits_.wanted);
    perform(tail_, step, thread, spent_.data() + body_.size());
    const Share mine = share(limits_.vocab, thread, team_.size());
    for (int row = 0; row < step.wanted_count; ++row)
      std::memcpy(asked.logits + static_cast<size_t>(done + row) * limits_.vocab + mine.begin,
                  step.at(logits_, row) + mine.begin, sizeof(float) * (mine.end - mine.begin));
    team_.barrier(thread);
  }
}

void Program::step(const Asked& asked) {
  lay_out(asked);
  for (const Operators* operators : {&body_, &tail_})
    for (const auto& op : *operators) op->reset();
  team_.run([&](int thread) { work(asked, thread); });
}

}  // namespace whet
