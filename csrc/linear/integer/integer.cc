// Integer weights times activations of int8, or of int16 in two halves.
#include <algorithm>
#include <bit>
#include <cstring>

#include "linear/integer/layout.h"

namespace whet {
namespace integer {
namespace {

const Routines& routines_of(Tier tier) {
#if defined(__x86_64__)
  if (has_avx512(tier)) return kAvx512;
  if (tier == Tier::avx2) return kAvx2;
#elif defined(__aarch64__)
  if (tier == Tier::dotprod) return kDotprod;
  if (tier == Tier::neon) return kNeon;
#endif
  (void)tier;
  return kGeneric;
}

class IntegerMatrix final : public Matrix {
 public:
  IntegerMatrix(const Weight& weight, const MatrixView& view, Tier tier)
      : Matrix(weight.rows, weight.cols, std::string("integer/") + tier_name(tier)),
        weight_(weight),
        rounding_{weight.cols,
                  weight.step,
                  weight.steps,
                  view.mode == Mode::int16 ? 2 : 1,
                  view.mode == Mode::token8,
                  view.input_scale},
        routines_(routines_of(tier)) {}

  uint64_t input_key() const override {
    uint64_t key = 0xcbf29ce484222325ull;  // FNV-1a
    for (uint64_t part :
         {uint64_t{1}, static_cast<uint64_t>(rounding_.cols), static_cast<uint64_t>(rounding_.step),
          static_cast<uint64_t>(rounding_.halves), static_cast<uint64_t>(rounding_.token),
          static_cast<uint64_t>(std::bit_cast<uint32_t>(rounding_.fixed))}) {
      key = (key ^ part) * 0x100000001b3ull;
    }
    return key;
  }

  std::size_t input_bytes(int tokens) const override {
    return scales_at(tokens) + 2 * numbers_bytes(tokens);
  }

  void prepare(const float* x, int stride, int tokens, void* input, int thread,
               int threads) const override {
    const bool by_token = tokens >= threads;
    const int first = by_token ? part(tokens, thread, threads) : 0;
    const int last = by_token ? part(tokens, thread + 1, threads) : tokens;
    const int from = by_token ? 0 : part(weight_.steps, thread, threads);
    const int to = by_token ? weight_.steps : part(weight_.steps, thread + 1, threads);
    for (int token = first; token < last; ++token) {
      routines_.prepare(rounding_, x + static_cast<std::size_t>(token) * stride,
                        place_of(input_of(input, tokens), token, tokens), from, to);
    }
  }

  std::size_t scratch_bytes(int tokens, int threads) const override {
    return static_cast<std::size_t>(threads) * own_scratch(tokens);
  }

  void multiply(const void* input, int tokens, float* y, int stride, bool accumulate, void* scratch,
                int thread, int threads) const override {
    const int units = (weight_.tile_count() + routines_.unit - 1) / routines_.unit;
    const int first = part(units, thread, threads) * routines_.unit;
    const int last =
        std::min(part(units, thread + 1, threads) * routines_.unit, weight_.tile_count());
    if (first >= last) return;
    auto* own = static_cast<std::byte*>(scratch) + thread * own_scratch(tokens);
    routines_.multiply(weight_, input_of(input, tokens), halves(tokens),
                       {y, stride, accumulate, rounding_.halves}, own, first, last);
  }

 private:
  static int part(int whole, int thread, int threads) {
    return static_cast<int>(static_cast<int64_t>(whole) * thread / threads);
  }
  std::size_t width() const { return static_cast<std::size_t>(weight_.steps) * weight_.step; }
  int halves(int tokens) const { return tokens * rounding_.halves; }
  std::size_t scales_at(int tokens) const {
    return round_up(halves(tokens) * width() + kLine, kLine);
  }
  std::size_t numbers_bytes(int tokens) const {
    return round_up(static_cast<std::size_t>(halves(tokens)) * weight_.steps * sizeof(float),
                    kLine);
  }
  std::size_t own_scratch(int tokens) const {
    return round_up(routines_.scratch(weight_, halves(tokens)), kLine);
  }
  Input input_of(const void* input, int tokens) const {
    const auto* bytes = static_cast<const std::byte*>(input);
    const std::byte* scales = bytes + scales_at(tokens);
    return {reinterpret_cast<const int8_t*>(bytes), reinterpret_cast<const float*>(scales),
            reinterpret_cast<const int32_t*>(scales + numbers_bytes(tokens)), width(),
            weight_.steps};
  }
  Place place_of(const Input& input, int token, int tokens) const {
    const int count = halves(tokens), half = halves(token);
    const int together = routines_.together(count, rounding_.halves);
    const int in_batch = half % together, first = half - in_batch;
    return {const_cast<int8_t*>(input.codes_of(first)) + in_batch * 4,
            const_cast<float*>(input.scales_of(first)) + in_batch,
            const_cast<int32_t*>(input.sums_of(first)) + in_batch,
            std::min(together, count - first)};
  }

  Weight weight_;
  Rounding rounding_;
  const Routines& routines_;
};

}  // namespace

std::unique_ptr<Matrix> open(Bytes layout, Tier tier) {
  const Weight weight = weight_of(layout);
  const MatrixView& view = view_of(layout);
  const Planes planes = {described(view).format, view.rows, view.cols, view.input_scale, {}};
  const std::string reason = refusal(planes, tier, view.mode);
  if (!reason.empty()) throw LayoutError(reason);
  return std::make_unique<IntegerMatrix>(weight, view, tier);
}

}  // namespace integer

Kernel integer_kernel() {
  return {1, "integer", integer::refusal, integer::pack, integer::unpack, integer::open};
}

}  // namespace whet
