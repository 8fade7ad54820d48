// What this processor and its operating system allow.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace whet {

// Sets of instructions that kernels are written for; a higher one includes the lower.
enum class Tier : uint8_t { generic = 0, avx2 = 1, avx512 = 2, neon = 3 };

const char* tier_name(Tier tier);
bool parse_tier(const std::string& name, Tier* tier);

// Why a tier cannot run here, or "" if it can: names what cpuid or xgetbv denies.
std::string tier_refusal(Tier tier);

// Tiers that can run here, the slowest first.
std::vector<Tier> tiers();

// The fastest of them, or the one that WHET_ISA names; throws std::runtime_error if that one is
// unknown or refused.
Tier chosen_tier();

// Names of the instruction sets that kernels ask for and that are present.
std::vector<std::string> cpu_features();

}  // namespace whet
