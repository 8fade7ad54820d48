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
  start_.value.fetch_add(1, std::memory_order_release);
  start_.value.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Team::await(const std::atomic<uint32_t>& word, uint32_t old) {
  const auto begin = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < kPauses; ++i) {
      if (word.load(std::memory_order_acquire) != old) return;
      pause();
    }
  } while (std::chrono::steady_clock::now() - begin < kPatience);
  while (word.load(std::memory_order_acquire) == old) word.wait(old, std::memory_order_acquire);
}

void Team::barrier(int) {
  if (size_ == 1) return;
  const uint32_t round = passed_.value.load(std::memory_order_relaxed);
  if (arrived_.value.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(size_)) {
    arrived_.value.store(0, std::memory_order_relaxed);
    passed_.value.fetch_add(1, std::memory_order_release);
    passed_.value.notify_all();
  } else {
    await(passed_.value, round);
  }
}

void Team::enter(Call call, void* job) {
  if (size_ == 1) {
    call(job, 0);
    return;
  }
  call_ = call;
  job_ = job;
  start_.value.fetch_add(1, std::memory_order_release);
  start_.value.notify_all();
  call(job, 0);
  barrier(0);
}

void Team::work(int thread) {
  for (uint32_t seen = 0;;) {
    await(start_.value, seen);
    ++seen;
    if (over_) return;
    call_(job_, thread);
    barrier(thread);
  }
}

}  // namespace whet
