#include "ops/rows.inl"

namespace whet {

const Rows& rows_avx2() { return kRows; }

}  // namespace whet
