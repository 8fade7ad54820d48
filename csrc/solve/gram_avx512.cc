#include <immintrin.h>

#include <cstring>

#include "solve/gram.inl"

namespace whet {

const Grammar& grammar_avx512() { return kGrammar; }

}  // namespace whet
