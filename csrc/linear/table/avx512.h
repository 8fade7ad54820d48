// The pieces of the AVX-512 tier: each is one translation unit.
#pragma once

#include "linear/table/kernel.h"

namespace whet::table {

constexpr int kAvx512Tokens = 12;  // of an interleaved tile

// Rounds activations to bf16 (prepare_avx512.cc).
void prepare_avx512(const Layout& l, const float* x, int stride, int tokens, std::byte* input,
                    int first, int last);

// Weights with a table for each row (rowwise_avx512.cc).
void rowwise_avx512(const Operand& w, const Multiplication& m);
std::size_t rowwise_scratch_avx512(const Layout& l, int tokens);

}  // namespace whet::table
