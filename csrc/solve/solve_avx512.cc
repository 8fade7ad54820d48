#include "solve/solve.inl"

namespace whet {

const Solver& solver_avx512() { return kSolver; }

}  // namespace whet
