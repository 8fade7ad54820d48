#include "ops/rows.inl"

namespace whet {

const Rows& rows_neon() { return kRows; }

}  // namespace whet
