// Weights laid out for kernels: the interface of all of them, and the registry.
//
// A weight's canonical planes (src/whet/formats/spec.py) are packed once into a layout, which may
// be kept on disk and memory-mapped; a Matrix reads it in place.
// Law: unpack(pack(planes)) == planes.   Law: a token's result does not depend on its neighbours.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "base/cpu.h"

namespace whet {

// How activations enter the products.
enum class Mode : uint8_t {
  int8 = 0,    // int8, a scale for some 32 inputs of a token
  token8 = 1,  // int8, a scale for a token, or a fixed one (W8A8)
  bf16 = 2,    // rounded to bfloat16
  int16 = 3,   // int16, a scale for some 32 inputs of a token; multiplied as two halves of int8
};

// What a code means (formats/element.py); `plain` is no code but a number.
enum class Element : uint8_t {
  integer = 0,
  minifloat = 1,
  quantile = 2,
  log = 3,
  power_sum = 4,
  learned = 5,
  plain = 6,
  mapped = 7,  // levels that are integers of int8, one table for all rows
};

enum class Scale : uint8_t { none = 0, bf16 = 1, f16 = 2, f32 = 3, e8m0 = 4, e4m3 = 5 };

constexpr int kChannel = 0;  // Format::group: a scale for a row,
constexpr int kTensor = -1;  // or one for the matrix

// A number format, as formats/spec.py names it.
struct Format {
  Element element = Element::integer;
  int bits = 0;      // of a code; of a number, if plain
  int exponent = 0;  // bits of it, of minifloats; 8: bf16 and f32, 5: f16, if plain
  int group = 0;     // inputs that share a scale, kChannel or kTensor
  bool affine = false;
  bool shared = false;  // learned: one table for all rows
  Scale scale = Scale::none;
  bool sparse = false;  // only some of the codes are stored, the others zero
  bool minimum = false;  // unsigned codes, and a number that each group adds, stored as its scale is
};

using Bytes = std::span<const std::byte>;

// A weight as it is stored. `planes` by their names in formats/spec.py ("codes", "scale", "zero",
// "minimum", "global", "levels", "base"; "value" if plain); what else a kernel wants (say "table": float32, the
// values of the codes) the caller adds. Where not all codes are stored, "mask" has a bit for each
// weight, the first input lowest, and "codes" those that it keeps, row by row, a byte each. A sum
// of formats is packed term by term.
struct Planes {
  Format format;
  int rows = 0, cols = 0;
  float input_scale = 0;  // of fixed int8 activations (token8); 0: found for each token
  std::map<std::string, Bytes> planes;
};

// The same, owning its bytes.
struct Stored {
  Format format;
  int rows = 0, cols = 0;
  float input_scale = 0;
  std::map<std::string, std::vector<std::byte>> planes;
};

// The beginning of every layout: 256 bytes, little-endian. What follows is the kernel's own, at
// offsets from the layout's first byte that are multiples of 64.
struct MatrixView {
  static constexpr char kMagic[8] = {'w', 'h', 'e', 't', 'm', 'a', 't', '1'};
  static constexpr int kParts = 12;

  char magic[8];
  uint64_t size;    // of the layout [byte]
  uint32_t kernel;  // Kernel::id
  Tier tier;
  Mode mode;
  Element element;
  Scale scale;
  int32_t rows, cols, group;
  int32_t bits, exponent;
  uint8_t affine, shared, sparse, minimum;
  float input_scale;
  int32_t step;             // inputs of a token that share an activation scale
  uint64_t offset[kParts];  // where the kernel's parts begin: tiles, tables, ...
  uint64_t length[kParts];  // and how long they are [byte]
};
static_assert(sizeof(MatrixView) == 248);
constexpr std::size_t kHeader = 256;  // the view, and zeros up to a multiple of a line

// A weight that can be multiplied by. Immutable; reads memory that others own.
class Matrix {
 public:
  virtual ~Matrix() = default;
  int rows() const { return rows_; }
  int cols() const { return cols_; }
  const std::string& name() const { return name_; }  // of kernel and tier, for reports

  // Activations are float32, row-major [tokens, cols]. They are first *prepared*, once for all
  // matrices of the same key: equal keys mean equal prepared bytes.
  virtual uint64_t input_key() const = 0;
  virtual std::size_t input_bytes(int tokens) const = 0;

  // Writes the prepared input (aligned to 64 bytes); tokens or groups are split over the threads.
  // A barrier must follow before `multiply`.
  virtual void prepare(const float* x, int stride, int tokens, void* input, int thread,
                       int threads) const = 0;

  // Memory that `multiply` writes to, shared by the threads, aligned to 64 bytes; may be 0.
  virtual std::size_t scratch_bytes(int tokens, int threads) const = 0;

  // y[t·stride + r] = (or +=) Σ_c W[r,c] x[t,c]. Each thread does some rows; no barrier inside.
  virtual void multiply(const void* input, int tokens, float* y, int stride, bool accumulate,
                        void* scratch, int thread, int threads) const = 0;

 protected:
  Matrix(int rows, int cols, std::string name) : rows_(rows), cols_(cols), name_(std::move(name)) {}

 private:
  int rows_, cols_;
  std::string name_;
};

// A family of layouts and the code that multiplies by them.
struct Kernel {
  uint32_t id;  // in layouts; never reused
  const char* name;
  // Why it does not take a weight, or "" if it does.
  std::string (*refusal)(const Planes& weight, Tier tier, Mode mode);
  Aligned (*pack)(const Planes& weight, Tier tier, Mode mode);
  Stored (*unpack)(Bytes layout);
  // The header is checked already; the kernel checks that its parts lie inside the layout.
  std::unique_ptr<Matrix> (*open)(Bytes layout, Tier tier);
};

// What is wrong with a layout or a weight. Kernels themselves throw nothing.
struct LayoutError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

const std::vector<Kernel>& kernels();  // the first that does not refuse is taken
const Kernel* kernel_for(const Planes& weight, Tier tier, Mode mode, std::string* refusals);

Aligned pack(const Planes& weight, Tier tier, Mode mode);
Stored unpack(Bytes layout);
// `tier` may differ from the one packed for, where the kernel's layout is the same.
std::unique_ptr<Matrix> open(Bytes layout, Tier tier);

// Checks magic, size, and that every part lies inside the layout; throws LayoutError.
const MatrixView& view_of(Bytes layout);
// A header for a weight, with no parts yet.
MatrixView header_for(const Planes& weight, uint32_t kernel, Tier tier, Mode mode);
// The weight's description, as `header_for` wrote it.
Stored described(const MatrixView& view);
// The bytes of a plane that must have this size; throws LayoutError.
Bytes plane(const Planes& weight, const std::string& name, std::size_t size);
int scale_bytes(Scale scale);

// linear/integer and linear/table
Kernel integer_kernel();
std::vector<Kernel> table_kernels();

}  // namespace whet
