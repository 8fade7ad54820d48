#include "check/weights.h"

#include <cstring>

#include "base/half.h"

namespace whet::check {
namespace {

int groups_of(const Format& format, int cols) {
  return format.group > 0 ? (cols + format.group - 1) / format.group : 1;
}

void put_scale(Scale kind, float value, Chance& chance, std::byte* to) {
  const uint16_t half = kind == Scale::bf16 ? f32_to_bf16(value) : f32_to_f16(value);
  switch (kind) {
    case Scale::none:
      return;
    case Scale::bf16:
    case Scale::f16:
      std::memcpy(to, &half, 2);
      return;
    case Scale::f32:
      std::memcpy(to, &value, 4);
      return;
    case Scale::e8m0:
      *to = static_cast<std::byte>(chance.below(16) + 112);
      return;
    case Scale::e4m3:
      *to = static_cast<std::byte>(chance.below(64) + 24);  // no NaN among them
  }
}

std::vector<std::byte> random_scales(Scale kind, std::size_t count, Chance& chance) {
  const std::size_t size = scale_bytes(kind);
  std::vector<std::byte> found(count * size);
  for (std::size_t i = 0; i < count; ++i) {
    put_scale(kind, 0.05f * chance.signed_unit(), chance, found.data() + i * size);
  }
  return found;
}

// Levels, in float32 or float16; or plain numbers, which lie as stored.
std::vector<std::byte> random_numbers(int bits, int exponent, std::size_t count, Chance& chance) {
  std::vector<std::byte> found(count * bits / 8);
  for (std::size_t i = 0; i < count; ++i) {
    const float value = chance.signed_unit();
    const uint16_t half = exponent == 5 ? f32_to_f16(value) : f32_to_bf16(value);
    if (bits == 32) {
      std::memcpy(found.data() + 4 * i, &value, 4);
    } else {
      std::memcpy(found.data() + 2 * i, &half, 2);
    }
  }
  return found;
}

// Halves of integers, in float32.
std::vector<std::byte> random_halves(std::size_t count, Chance& chance) {
  std::vector<std::byte> found(count * sizeof(float));
  for (std::size_t i = 0; i < count; ++i) {
    const float value = 0.5f * static_cast<float>(chance.below(25) - 12);
    std::memcpy(found.data() + i * sizeof value, &value, sizeof value);
  }
  return found;
}

// A mask that keeps much of some rows and little of others; sets the number of what it keeps.
std::vector<std::byte> random_mask(int rows, int cols, Chance& chance, std::size_t* kept) {
  const std::size_t bytes = (static_cast<std::size_t>(cols) + 7) / 8;
  std::vector<std::byte> found(bytes * rows);
  *kept = 0;
  for (int r = 0; r < rows; ++r) {
    const int most = chance.below(9);
    for (int c = 0; c < cols; ++c) {
      if (chance.below(8) >= most) continue;
      found[r * bytes + c / 8] |= std::byte{1} << (c % 8);
      ++*kept;
    }
  }
  return found;
}

}  // namespace

Random::Random(const Format& format_, int rows_, int cols_, Chance& chance)
    : format(format_), rows(rows_), cols(cols_) {
  const std::size_t height = rows, width = cols, bits = format.bits;
  if (format.element == Element::plain) {
    owned["value"] = random_numbers(format.bits, format.exponent, height * width, chance);
    return;
  }
  const bool one = format.group == kTensor;
  const std::size_t groups = groups_of(format, cols), levels = std::size_t{1} << bits;
  owned["codes"] = chance.bytes(height * ((width * bits + 7) / 8));
  owned["scale"] = random_scales(format.scale, one ? 1 : height * groups, chance);
  if (format.minimum) {
    owned["minimum"] = random_scales(format.scale, one ? 1 : height * groups, chance);
  }
  if (format.affine) owned["zero"] = chance.bytes(one ? 1 : (height * bits + 7) / 8 * groups);
  if (one && format.affine) owned["zero"][0] &= static_cast<std::byte>(levels - 1);
  if (format.sparse) {
    std::size_t kept = 0;
    owned["mask"] = random_mask(rows, cols, chance, &kept);
    owned["codes"] = chance.bytes(kept);
  }
  if (format.scale == Scale::e4m3) owned["global"] = random_numbers(32, 8, 1, chance);
  if (format.element == Element::learned) {
    owned["levels"] = random_numbers(16, 5, (format.shared ? 1 : height) * levels, chance);
  } else if (format.element == Element::mapped) {
    owned["levels"] = chance.bytes(levels);
  } else if (format.element == Element::minifloat && bits == 4 && format.exponent == 2) {
    owned["table"] = random_halves(levels, chance);
  } else if (format.element != Element::integer) {
    owned["table"] = random_numbers(32, 8, levels, chance);
  }
}

Planes Random::planes(float input_scale) const {
  Planes weight{format, rows, cols, input_scale, {}};
  for (const auto& [name, bytes] : owned) weight.planes[name] = {bytes.data(), bytes.size()};
  return weight;
}

std::string Random::name() const {
  return std::to_string(rows) + "x" + std::to_string(cols) + " element " +
         std::to_string(static_cast<int>(format.element)) + " bits " +
         std::to_string(format.bits) + " group " + std::to_string(format.group) + " scale " +
         std::to_string(static_cast<int>(format.scale)) + (format.affine ? " affine" : "") +
         (format.minimum ? " minimum" : "") + (format.shared ? " shared" : "") + (format.sparse ? " sparse" : "");
}

std::vector<float> product(Bytes layout, Tier tier, const std::vector<float>& x, int tokens,
                           int threads, bool accumulate) {
  const std::unique_ptr<Matrix> matrix = open(layout, tier);
  Aligned input(matrix->input_bytes(tokens)), scratch(matrix->scratch_bytes(tokens, threads));
  std::vector<float> y(static_cast<std::size_t>(tokens) * matrix->rows(), accumulate ? 1.0f : 0.0f);
  for (int thread = 0; thread < threads; ++thread) {
    matrix->prepare(x.data(), matrix->cols(), tokens, input.data(), thread, threads);
  }
  for (int thread = 0; thread < threads; ++thread) {
    matrix->multiply(input.data(), tokens, y.data(), matrix->rows(), accumulate, scratch.data(),
                     thread, threads);
  }
  return y;
}

}  // namespace whet::check
