#include "ops/rows.inl"

namespace whet {

const Rows& rows_generic() { return kRows; }

}  // namespace whet
