// A persistent team of threads that enters a job together.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace whet {

// The caller of `run` is thread 0; the others wait for it, at first spinning, after some 50 us
// asleep. One job at a time: `run` is not to be called by two threads at once, nor inside itself.
class Team {
 public:
  explicit Team(int threads);  // at least 1
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return size_; }

  // Calls f(thread) on every thread; returns when all are done. f must not throw.
  template <class F>
  void run(F&& f) {
    using Job = std::remove_reference_t<F>;
    enter([](void* job, int thread) { (*static_cast<Job*>(job))(thread); },
          const_cast<void*>(static_cast<const void*>(&f)));
  }

  // Inside `run`: returns when every thread has come here; what each wrote before, all see after.
  void barrier(int thread);

 private:
  using Call = void (*)(void*, int);
  struct alignas(64) Word {
    std::atomic<uint32_t> value{0};
  };

  void enter(Call call, void* job);
  void work(int thread);
  static void await(const std::atomic<uint32_t>& word, uint32_t old);

  const int size_;
  Call call_ = nullptr;
  void* job_ = nullptr;
  bool over_ = false;
  Word start_;    // counts jobs
  Word arrived_;  // at the present barrier
  Word passed_;   // counts barriers
  std::vector<std::thread> threads_;
};

}  // namespace whet
