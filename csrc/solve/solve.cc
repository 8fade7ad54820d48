#include "solve/solve.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "base/aligned.h"
#include "base/cpu.h"
#include "base/team.h"

namespace whet {
const Solver& solver_of(Tier tier) {
#if defined(__x86_64__)
  if (has_avx512(tier)) return solver_avx512();
  if (tier == Tier::avx2) return solver_avx2();
#elif defined(__aarch64__)
  if (tier != Tier::generic) return solver_neon();
#endif
  (void)tier;
  return solver_generic();
}

namespace {

// Calls work(first, scratch) for each panel; threads take the next one that is left.
template <class Work>
void each_panel(const Solver& solver, int inputs, int outputs, const Grid& grid, int threads,
                Work&& work) {
  const int panels = (outputs + solver.lanes - 1) / solver.lanes;
  Team team(std::clamp(threads, 1, std::max(panels, 1)));
  std::vector<Aligned> scratch;
  for (int thread = 0; thread < team.size(); ++thread) {
    scratch.emplace_back(solver.scratch(inputs, grid) * sizeof(float));
  }
  std::atomic<int> next{0};
  team.run([&](int thread) {
    auto* const own = reinterpret_cast<float*>(scratch[static_cast<size_t>(thread)].data());
    for (int panel = next++; panel < panels; panel = next++) work(panel * solver.lanes, own);
  });
}

}  // namespace

void solve_columns(const Columns& problem, const Grid& grid, int threads) {
  const Solver& chosen = solver_of(chosen_tier());
  each_panel(chosen, problem.inputs, problem.outputs, grid, threads,
             [&](int first, float* scratch) { chosen.columns(problem, grid, first, scratch); });
}

int64_t solve_sweep(const Sweep& problem, const Grid& grid, int threads) {
  const Solver& chosen = solver_of(chosen_tier());
  std::atomic<int64_t> changed{0};
  each_panel(chosen, problem.inputs, problem.outputs, grid, threads,
             [&](int first, float* scratch) {
               changed += chosen.sweep(problem, grid, first, scratch);
             });
  return changed;
}

}  // namespace whet
