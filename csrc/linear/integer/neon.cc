// Integer weights times int8 activations by NEON: products of bytes are widened.
#include <arm_neon.h>

#include <algorithm>
#include <utility>

#include "linear/integer/planes.h"

namespace whet::integer {
namespace {

#include "linear/integer/prepare.inl"

#include "linear/integer/neon.inl"

}  // namespace

const Routines kNeon = {prepare, together, multiply, scratch, 1};

}  // namespace whet::integer
