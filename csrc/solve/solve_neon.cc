#include "solve/solve.inl"

namespace whet {

const Solver& solver_neon() { return kSolver; }

}  // namespace whet
