#include "solve/gram.inl"

namespace whet {

const Grammar& grammar_generic() { return kGrammar; }

}  // namespace whet
