#include "base/cpu.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace whet {
namespace {

struct Feature {
  const char* name;
  Tier tier;  // that needs it
  bool present;
};

#if defined(__x86_64__)
constexpr Tier kWritten[] = {Tier::generic, Tier::avx2, Tier::avx512, Tier::avx512bf16};

uint64_t xgetbv() {
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

std::vector<Feature> features() {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  __get_cpuid(1, &a, &b, &c, &d);
  const bool saves = c >> 27 & 1;  // the system switches extended states by xsave
  const uint64_t state = saves ? xgetbv() : 0;
  const bool ymm = (state & 0x6) == 0x6, zmm = (state & 0xe6) == 0xe6;
  std::vector<Feature> found = {{"ymm registers saved by the system", Tier::avx2, ymm},
                                {"avx", Tier::avx2, (c >> 28 & 1) != 0},
                                {"fma", Tier::avx2, (c >> 12 & 1) != 0},
                                {"f16c", Tier::avx2, (c >> 29 & 1) != 0}};
  uint32_t b7 = 0, c7 = 0, d7 = 0, a71 = 0;
  if (__get_cpuid_count(7, 0, &a, &b7, &c7, &d7) && a >= 1) {
    uint32_t rest_b = 0, rest_c = 0, rest_d = 0;
    __get_cpuid_count(7, 1, &a71, &rest_b, &rest_c, &rest_d);
  }
  const auto add = [&](const char* name, Tier tier, uint32_t word, int bit) {
    found.push_back({name, tier, (word >> bit & 1) != 0});
  };
  add("avx2", Tier::avx2, b7, 5);
  add("bmi2", Tier::avx2, b7, 8);
  found.push_back({"zmm registers saved by the system", Tier::avx512, zmm});
  add("avx512f", Tier::avx512, b7, 16);
  add("avx512dq", Tier::avx512, b7, 17);
  add("avx512bw", Tier::avx512, b7, 30);
  add("avx512vl", Tier::avx512, b7, 31);
  add("avx512vbmi", Tier::avx512, c7, 1);
  add("avx512vbmi2", Tier::avx512, c7, 6);
  add("avx512vnni", Tier::avx512, c7, 11);
  add("avx512bf16", Tier::avx512bf16, a71, 5);
  return found;
}
#elif defined(__aarch64__)
constexpr Tier kWritten[] = {Tier::generic, Tier::neon, Tier::dotprod};

bool multiplies_bytes() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__APPLE__)
  int found = 0;
  std::size_t size = sizeof found;
  return sysctlbyname("hw.optional.arm.FEAT_DotProd", &found, &size, nullptr, 0) == 0 && found != 0;
#else
  return false;
#endif
}

std::vector<Feature> features() {
  return {{"asimd", Tier::neon, true}, {"asimddp", Tier::dotprod, multiplies_bytes()}};
}
#else
constexpr Tier kWritten[] = {Tier::generic};

std::vector<Feature> features() { return {}; }
#endif

}  // namespace

const char* tier_name(Tier tier) {
  switch (tier) {
    case Tier::generic:
      return "generic";
    case Tier::avx2:
      return "avx2";
    case Tier::avx512:
      return "avx512";
    case Tier::avx512bf16:
      return "avx512bf16";
    case Tier::neon:
      return "neon";
    case Tier::dotprod:
      return "dotprod";
  }
  return "unknown";
}

bool parse_tier(const std::string& name, Tier* tier) {
  for (Tier each : {Tier::generic, Tier::avx2, Tier::avx512, Tier::avx512bf16, Tier::neon,
                    Tier::dotprod}) {
    if (name == tier_name(each)) {
      *tier = each;
      return true;
    }
  }
  return false;
}

std::string tier_refusal(Tier tier) {
  if (std::find(std::begin(kWritten), std::end(kWritten), tier) == std::end(kWritten)) {
    return "this is another kind of processor";
  }
  std::string missing;
  for (const Feature& feature : features()) {
    if (feature.tier <= tier && !feature.present)
      missing += (missing.empty() ? "" : ", ") + std::string(feature.name);
  }
  return missing.empty() ? "" : "the processor lacks " + missing;
}

std::vector<Tier> written_tiers() { return {std::begin(kWritten), std::end(kWritten)}; }

std::vector<Tier> tiers() {
  std::vector<Tier> found;
  for (Tier tier : kWritten) {
    if (tier_refusal(tier).empty()) found.push_back(tier);
  }
  return found;
}

Tier chosen_tier() {
  const char* forced = std::getenv("WHET_ISA");
  if (forced == nullptr || *forced == '\0') return tiers().back();
  Tier tier = Tier::generic;
  if (!parse_tier(forced, &tier)) {
    throw std::runtime_error(std::string("WHET_ISA=") + forced +
                             ": expected generic, avx2, avx512, avx512bf16, neon or dotprod");
  }
  const std::string reason = tier_refusal(tier);
  if (!reason.empty()) throw std::runtime_error(std::string("WHET_ISA=") + forced + ": " + reason);
  return tier;
}

std::vector<std::string> cpu_features() {
  std::vector<std::string> names;
  for (const Feature& feature : features()) {
    if (feature.present && std::string(feature.name).find(' ') == std::string::npos) {
      names.emplace_back(feature.name);
    }
  }
  return names;
}

}  // namespace whet
