#include "solve/solve.inl"

namespace whet {

const Solver& solver_generic() { return kSolver; }

}  // namespace whet
