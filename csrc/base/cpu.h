// What this processor and its operating system allow.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace whet {

// Sets of instructions that kernels are written for; of one kind of processor (x86-64: avx2, avx512
// and avx512bf16, aarch64: neon and dotprod) a higher one includes the lower.
enum class Tier : uint8_t { generic = 0, avx2 = 1, avx512 = 2, avx512bf16 = 3, neon = 4, dotprod = 5 };

// Whether a tier includes avx512; many of its kernels are those of avx512bf16 too.
constexpr bool has_avx512(Tier tier) { return tier == Tier::avx512 || tier == Tier::avx512bf16; }

const char* tier_name(Tier tier);
bool parse_tier(const std::string& name, Tier* tier);

// Why a tier cannot run here, or "" if it can: names what the processor or the system denies.
std::string tier_refusal(Tier tier);

// Tiers for this kind of processor, the slowest first.
std::vector<Tier> written_tiers();

// Those of them that can run here, the slowest first.
std::vector<Tier> tiers();

// The fastest of these, or the one that WHET_ISA names; throws std::runtime_error if that one is
// unknown or refused.
Tier chosen_tier();

// Names of the instruction sets that kernels ask for and that are present.
std::vector<std::string> cpu_features();

}  // namespace whet
