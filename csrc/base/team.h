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
  // A number that threads wait on until it is another. Who sleeps is counted here: the standard
  // library counts sleepers for many addresses at once, and while another team of this process
  // slept, each step of this one would ask the system to wake nobody.
  class Count {
   public:
    uint32_t now() const { return value_.load(std::memory_order_relaxed); }
    void raise();
    void await(uint32_t old);  // spins, then sleeps, until the number is not `old`

   private:
    alignas(64) std::atomic<uint32_t> value_{0};
    std::atomic<uint32_t> sleepers_{0};
  };

  void enter(Call call, void* job);
  void work(int thread);

  const int size_;
  Call call_ = nullptr;
  void* job_ = nullptr;
  bool over_ = false;
  Count start_;                                    // of jobs
  Count passed_;                                   // of barriers
  alignas(64) std::atomic<uint32_t> arrived_{0};  // at the present barrier
  std::vector<std::thread> threads_;
};

}  // namespace whet
