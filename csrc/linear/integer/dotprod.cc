// Integer weights times int8 activations by the dot product of bytes.
#include <arm_neon.h>

#include <algorithm>
#include <utility>

#include "linear/integer/planes.h"

namespace whet::integer {
namespace {

#include "linear/integer/prepare.inl"

#include "linear/integer/neon.inl"

}  // namespace

const Routines kDotprod = {prepare, together, multiply, scratch, 1};

}  // namespace whet::integer
