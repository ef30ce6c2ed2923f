#include "client/formats/numpy_dtype.h"

#include <algorithm>
#include <array>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace ckpt::formats {
namespace {

// Larger elements do not come up, and their sizes must not overflow.
constexpr std::uint64_t kMaxCount = 1U << 30;

bool TakeCount(std::string_view& text, std::uint64_t& count) {
  const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  if (digits == 0 || !absl::SimpleAtoi(absl::string_view(text.data(), digits), &count) || count > kMaxCount)
    return false;
  text.remove_prefix(digits);
  return true;
}

// What numpy has on the machines that we know; longdouble is an f16, or a c32.
bool IsElement(char kind, std::uint64_t count) {
  switch (kind) {
    case 'b': return count == 1;
    case 'i':
    case 'u': return count == 1 || count == 2 || count == 4 || count == 8;
    case 'f': return count == 2 || count == 4 || count == 8 || count == 16;
    case 'c': return count == 8 || count == 16 || count == 32;
    case 'm':
    case 'M': return count == 8;
    case 'S':
    case 'U':
    case 'V': return true;
    default: return false;
  }
}

}  // namespace

bool IsTimeUnit(std::string_view unit) {
  static constexpr auto kUnits =
      std::to_array<std::string_view>({"Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"});
  return std::find(kUnits.begin(), kUnits.end(), unit) != kUnits.end();
}

std::string NumpyDType::ToString() const {
  std::string text = absl::StrCat(std::string(1, order), std::string(1, kind), count);
  if (!unit.empty()) absl::StrAppend(&text, "[", unit_count == 1 ? "" : absl::StrCat(unit_count), unit, "]");
  return text;
}

std::optional<v1::DType> NumpyDType::ToTensor() const {
  if (order == '>') return std::nullopt;
  struct Match {
    char kind;
    std::uint64_t count;
    v1::DType dtype;
  };
  static constexpr auto kMatches = std::to_array<Match>({{'b', 1, v1::DTYPE_BOOL},
                                                         {'i', 1, v1::DTYPE_INT8},
                                                         {'i', 2, v1::DTYPE_INT16},
                                                         {'i', 4, v1::DTYPE_INT32},
                                                         {'i', 8, v1::DTYPE_INT64},
                                                         {'u', 1, v1::DTYPE_UINT8},
                                                         {'u', 2, v1::DTYPE_UINT16},
                                                         {'u', 4, v1::DTYPE_UINT32},
                                                         {'u', 8, v1::DTYPE_UINT64},
                                                         {'f', 2, v1::DTYPE_FLOAT16},
                                                         {'f', 4, v1::DTYPE_FLOAT32},
                                                         {'f', 8, v1::DTYPE_FLOAT64},
                                                         {'c', 8, v1::DTYPE_COMPLEX64},
                                                         {'c', 16, v1::DTYPE_COMPLEX128}});
  for (const Match& match : kMatches)
    if (match.kind == kind && match.count == count) return match.dtype;
  return std::nullopt;
}

std::optional<NumpyDType> ParseNumpyDType(std::string_view text) {
  NumpyDType dtype;
  dtype.order = '<';
  if (!text.empty() && std::string_view("<>|").find(text[0]) != std::string_view::npos) {
    dtype.order = text[0];
    text.remove_prefix(1);
  }
  if (text.empty()) return std::nullopt;
  dtype.kind = text[0];
  text.remove_prefix(1);
  if (!TakeCount(text, dtype.count) || !IsElement(dtype.kind, dtype.count)) return std::nullopt;
  const bool time = dtype.kind == 'm' || dtype.kind == 'M';
  if (time && !text.empty()) {
    if (text.size() < 3 || text.front() != '[' || text.back() != ']') return std::nullopt;
    text = text.substr(1, text.size() - 2);
    TakeCount(text, dtype.unit_count);
    if (!IsTimeUnit(text) || dtype.unit_count == 0) return std::nullopt;
    dtype.unit = text;
    text = {};
  }
  if (!text.empty()) return std::nullopt;
  const bool has_order = dtype.kind == 'U' || (dtype.count > 1 && dtype.kind != 'S' && dtype.kind != 'V');
  if (!has_order) dtype.order = '|';
  if (has_order && dtype.order == '|') return std::nullopt;
  return dtype;
}

}  // namespace ckpt::formats
