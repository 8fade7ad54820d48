#include "ops/rows.inl"

namespace whet {

const Rows& rows_avx512() { return kRows; }

}  // namespace whet
