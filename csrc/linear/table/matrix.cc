// Weights multiplied with bf16 activations, as matrices of the registry.
#include "linear/matrix.h"

#include <algorithm>
#include <cstring>

#include "base/half.h"
#include "linear/table/kernel.h"
#include "linear/table/layout.h"

namespace whet {
namespace {

constexpr uint32_t kId = 2;

table::Coding coding_of(const Format& format) {
  table::Coding coding;
  if (format.element == Element::plain) {
    coding.bits = 0;
    coding.scale = Scale::none;
    coding.number = format.bits == 32      ? table::Number::f32
                    : format.exponent == 5 ? table::Number::f16
                                           : table::Number::bf16;
    return coding;
  }
  coding.bits = format.bits;
  coding.group = format.group > 0 ? format.group : 0;
  coding.tensor = format.group == kTensor;
  coding.affine = format.affine;
  coding.row_levels = format.element == Element::learned && !format.shared;
  coding.scale = format.scale;
  return coding;
}

// Planes of this geometry, by name, and their sizes [byte].
std::map<std::string, std::size_t> sizes(const Format& format, std::size_t rows, std::size_t cols) {
  if (format.element == Element::plain) return {{"value", rows * cols * format.bits / 8}};
  const std::size_t bits = format.bits, levels = std::size_t{1} << bits;
  const std::size_t group = format.group > 0 ? format.group : cols;
  const std::size_t groups = (cols + group - 1) / group, scale = scale_bytes(format.scale);
  const bool one = format.group == kTensor;
  std::map<std::string, std::size_t> found = {{"codes", rows * ((cols * bits + 7) / 8)},
                                              {"scale", (one ? 1 : rows * groups) * scale}};
  if (format.affine) found["zero"] = one ? 1 : (rows * bits + 7) / 8 * groups;
  if (format.scale == Scale::e4m3) found["global"] = 4;
  if (format.element == Element::learned)
    found["levels"] = (format.shared ? 1 : rows) * levels * sizeof(uint16_t);
  if (format.element == Element::mapped) found["levels"] = levels;
  return found;
}

// Integers count from the middle of their codes; what other fixed codes mean is given.
std::vector<float> values_of(const Planes& weight) {
  const Format& format = weight.format;
  std::vector<float> values(std::size_t{1} << format.bits);
  if (format.element == Element::integer) {
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(static_cast<int>(i) - static_cast<int>(values.size() / 2));
  } else if (format.element == Element::mapped) {
    const Bytes levels = plane(weight, "levels", values.size());
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(static_cast<int8_t>(levels[i]));
  } else if (format.element == Element::learned) {
    const Bytes levels = plane(weight, "levels", values.size() * sizeof(uint16_t));
    for (std::size_t i = 0; i < values.size(); ++i) {
      uint16_t level;
      std::memcpy(&level, levels.data() + 2 * i, sizeof level);
      values[i] = f16_to_f32(level);
    }
  } else {
    const Bytes given = plane(weight, "table", values.size() * sizeof(float));
    std::memcpy(values.data(), given.data(), given.size());
  }
  return values;
}

// Borrowed planes, checked; what is not aligned in them is copied.
struct Borrowed {
  table::Source source;
  std::vector<float> values;
  std::vector<uint16_t> levels;
  float global = 1, base = 0;

  explicit Borrowed(const Planes& weight) {
    for (const auto& [name, size] : sizes(weight.format, weight.rows, weight.cols))
      take(name, plane(weight, name, size), weight.format);
    if (weight.planes.count("base")) {
      std::memcpy(&base, plane(weight, "base", 4).data(), 4);
      source.base = &base;
    }
    if (weight.format.element == Element::plain || source.levels) return;
    values = values_of(weight);
    source.values = values.data();
  }

 private:
  void take(const std::string& name, Bytes bytes, const Format& format) {
    if (name == "codes") source.codes = reinterpret_cast<const uint8_t*>(bytes.data());
    if (name == "zero") source.zero = reinterpret_cast<const uint8_t*>(bytes.data());
    if (name == "value") source.value = bytes.data();
    if (name == "scale") source.scale = bytes.data();
    if (name == "global") {
      std::memcpy(&global, bytes.data(), 4);
      source.global = &global;
    }
    if (name == "levels" && format.element == Element::learned && !format.shared) {
      levels.resize(bytes.size() / 2);
      std::memcpy(levels.data(), bytes.data(), bytes.size());
      source.levels = levels.data();
    }
  }
};

const table::Kernels* kernels_of(Tier tier) {
#if defined(__x86_64__) || defined(_M_X64)
  if (tier == Tier::avx512bf16) return &table::avx512bf16::kKernels;
  if (tier == Tier::avx512) return &table::avx512::kKernels;
  if (tier == Tier::avx2) return &table::kAvx2;
#elif defined(__aarch64__)
  if (tier != Tier::generic) return &table::kNeon;
#endif
  return &table::kGeneric;
}

std::string refusal_of(const Planes& weight, Tier, Mode mode) {
  if (mode != Mode::bf16) return "multiplies with activations in bf16, not in 8 bits";
  if (weight.format.minimum) return "codes with a minimum are not looked up";
  if (weight.format.sparse) return "codes of sparse weights are not looked up";
  return table::refusal(coding_of(weight.format), weight.rows, weight.cols);
}

Aligned packed(const Planes& weight, Tier tier, Mode mode) {
  const Borrowed borrowed(weight);
  const table::Coding coding = coding_of(weight.format);
  const table::Layout layout =
      table::planned(coding, borrowed.source, weight.rows, weight.cols, has_avx512(tier));
  Aligned bytes(kHeader + layout.bytes);
  MatrixView view = header_for(weight, kId, tier, mode);
  view.size = bytes.size();
  view.offset[0] = kHeader;
  view.length[0] = layout.bytes;
  std::memcpy(bytes.data(), &view, sizeof view);
  table::pack(layout, borrowed.source, bytes.data() + kHeader);
  return bytes;
}

const table::Layout& layout_of(Bytes bytes) {
  const MatrixView& view = view_of(bytes);
  const table::Layout* layout = table::header(bytes.data() + view.offset[0], view.length[0]);
  const Planes described{whet::described(view).format, view.rows, view.cols, 0, {}};
  if (!layout || layout->rows != view.rows || layout->cols != view.cols ||
      !(layout->coding == coding_of(described.format)))
    throw LayoutError("the layout's parts do not fit its header");
  return *layout;
}

void keep(Stored& weight, const char* name, const void* from, std::size_t size) {
  const auto* bytes = static_cast<const std::byte*>(from);
  weight.planes[name] = {bytes, bytes + size};
}

Stored unpacked(Bytes bytes) {
  const table::Layout& layout = layout_of(bytes);
  const MatrixView& view = view_of(bytes);
  Stored weight = described(view);
  for (const auto& [name, size] : sizes(weight.format, weight.rows, weight.cols))
    weight.planes[name].resize(size);
  table::Sink sink;
  const auto at = [&](const char* name) {
    const auto found = weight.planes.find(name);
    return found == weight.planes.end() ? nullptr : found->second.data();
  };
  sink.codes = reinterpret_cast<uint8_t*>(at("codes"));
  sink.zero = reinterpret_cast<uint8_t*>(at("zero"));
  sink.levels = reinterpret_cast<uint16_t*>(at("levels"));
  sink.scale = at("scale");
  sink.value = at("value");
  table::unpack(bytes.data() + view.offset[0], sink);
  if (weight.planes.count("global")) keep(weight, "global", &layout.global, 4);
  const bool mapped = weight.format.element == Element::mapped;
  if (mapped || (weight.format.element == Element::learned && weight.format.shared)) {
    for (std::size_t i = 0; i < std::size_t{1} << layout.coding.bits; ++i) {
      float value;
      std::memcpy(&value, bytes.data() + view.offset[0] + layout.values + 4 * i, sizeof value);
      if (mapped) {
        weight.planes["levels"][i] = static_cast<std::byte>(static_cast<int>(value));
      } else {
        sink.levels[i] = f32_to_f16(value);
      }
    }
  }
  if (layout.has_base) keep(weight, "base", &layout.base, 4);
  return weight;
}

class TableMatrix final : public Matrix {
 public:
  TableMatrix(Bytes bytes, Tier tier)
      : Matrix(layout_of(bytes).rows, layout_of(bytes).cols,
               std::string("table, ") + tier_name(tier)),
        layout_(layout_of(bytes)),
        bytes_(bytes.data() + view_of(bytes).offset[0]),
        kernels_(*kernels_of(tier)) {
    if (layout_.split) {
      table_ = std::make_unique<table::Table>();
      table::fill_uppers(*table_, reinterpret_cast<const uint8_t*>(bytes_ + layout_.values));
      return;
    }
    if (layout_.coding.number != table::Number::code || layout_.coding.row_levels) return;
    std::vector<float> values(std::size_t{1} << layout_.coding.bits);
    std::memcpy(values.data(), bytes_ + layout_.values, values.size() * sizeof(float));
    table_ = std::make_unique<table::Table>();
    table::fill(*table_, values.data(), layout_.coding.bits);
  }

  uint64_t input_key() const override {
    const bool as_is = layout_.slot == layout_.group;  // inputs lie at their own places
    const uint64_t parts[] = {kId,
                              static_cast<uint64_t>(kernels_.number_bytes),
                              static_cast<uint64_t>(layout_.form),
                              static_cast<uint64_t>(layout_.width),
                              static_cast<uint64_t>(layout_.cols),
                              as_is ? 0 : static_cast<uint64_t>(layout_.group),
                              as_is ? 0 : static_cast<uint64_t>(layout_.slot),
                              layout_.coding.affine ? static_cast<uint64_t>(layout_.segment) : 0,
                              layout_.coding.affine ? static_cast<uint64_t>(layout_.slot) : 0};
    uint64_t key = 0xcbf29ce484222325;
    for (uint64_t part : parts) key = (key ^ part) * 0x100000001b3 + (key >> 29);
    return key;
  }

  std::size_t input_bytes(int tokens) const override {
    const std::size_t sums = layout_.coding.affine ? sizeof(float) * layout_.segments * tokens : 0;
    return round_up(table::sums_offset(layout_, tokens, kernels_.number_bytes) + sums, kLine);
  }

  void prepare(const float* x, int stride, int tokens, void* input, int thread,
               int threads) const override {
    const int64_t chunks = layout_.width / 64;
    const int first = static_cast<int>(chunks * thread / threads) * 64;
    const int last = static_cast<int>(chunks * (thread + 1) / threads) * 64;
    if (first < last)
      kernels_.prepare(layout_, x, stride, tokens, static_cast<std::byte*>(input), first, last);
  }

  std::size_t scratch_bytes(int tokens, int threads) const override {
    return threads * round_up(kernels_.scratch_bytes(layout_, tokens), kLine);
  }

  void multiply(const void* input, int tokens, float* y, int stride, bool accumulate, void* scratch,
                int thread, int threads) const override {
    // Pairs of tiles stay together: kernels decode two at a time.
    const int64_t pairs = (layout_.tiles + 1) / 2;
    const int first = static_cast<int>(2 * (pairs * thread / threads));
    const int last = static_cast<int>(2 * (pairs * (thread + 1) / threads));
    auto* own = static_cast<std::byte*>(scratch) +
                thread * round_up(kernels_.scratch_bytes(layout_, tokens), kLine);
    kernels_.multiply({&layout_, bytes_, table_.get()},
                      {static_cast<const std::byte*>(input), tokens, y, stride, accumulate, own,
                       first, std::min(last, static_cast<int>(layout_.tiles))});
  }

 private:
  const table::Layout& layout_;
  const std::byte* bytes_;
  const table::Kernels& kernels_;
  std::unique_ptr<table::Table> table_;
};

std::unique_ptr<Matrix> opened(Bytes bytes, Tier tier) {
  return std::make_unique<TableMatrix>(bytes, tier);
}

}  // namespace

std::vector<Kernel> table_kernels() {
  return {{kId, "table", refusal_of, packed, unpacked, opened}};
}

}  // namespace whet
