#include "solve/solve.inl"

namespace whet {

const Solver& solver_avx2() { return kSolver; }

}  // namespace whet
