#include "base/team.h"

#include <algorithm>
#include <chrono>
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace whet {
namespace {

constexpr std::chrono::microseconds kPatience{50};  // spinning before sleep
constexpr int kPauses = 32;                         // between looks at the clock

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

}  // namespace

Team::Team(int threads) : size_(std::max(threads, 1)) {
  threads_.reserve(static_cast<std::size_t>(size_ - 1));
  for (int thread = 1; thread < size_; ++thread) {
    threads_.emplace_back([this, thread] { work(thread); });
  }
}

Team::~Team() {
  over_ = true;
  start_.raise();
  for (std::thread& thread : threads_) thread.join();
}

// Either the sleeper sees the new number, or it is seen among the sleepers: each writes its own word
// before it reads the other's, in one order for all (seq_cst).
void Team::Count::raise() {
  value_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) != 0) value_.notify_all();
}

void Team::Count::await(uint32_t old) {
  const auto begin = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < kPauses; ++i) {
      if (value_.load(std::memory_order_acquire) != old) return;
      pause();
    }
  } while (std::chrono::steady_clock::now() - begin < kPatience);
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  while (value_.load(std::memory_order_seq_cst) == old) {
    value_.wait(old, std::memory_order_seq_cst);
  }
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

void Team::barrier(int) {
  if (size_ == 1) return;
  const uint32_t round = passed_.now();
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(size_)) {
    arrived_.store(0, std::memory_order_relaxed);
    passed_.raise();
  } else {
    passed_.await(round);
  }
}

void Team::enter(Call call, void* job) {
  if (size_ == 1) {
    call(job, 0);
    return;
  }
  call_ = call;
  job_ = job;
  start_.raise();
  call(job, 0);
  barrier(0);
}

void Team::work(int thread) {
  for (uint32_t seen = 0;;) {
    start_.await(seen);
    ++seen;
    if (over_) return;
    call_(job_, thread);
    barrier(thread);
  }
}

}  // namespace whet
