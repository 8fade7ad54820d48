// The pieces of a tier with AVX-512: each is one translation unit.
#pragma once

#include "base/bf16_avx512.h"
#include "linear/table/kernel.h"

namespace whet::table::WHET_AVX512 {

constexpr int kMostTokens = 12;  // of an interleaved tile

// Rounds activations to bf16 (prepare_avx512.cc).
void prepare(const Layout& l, const float* x, int stride, int tokens, std::byte* input,
                    int first, int last);

// Weights with a table for each row (rowwise_avx512.cc).
void rowwise(const Operand& w, const Multiplication& m);
std::size_t rowwise_scratch(const Layout& l, int tokens);

}  // namespace whet::table::WHET_AVX512
