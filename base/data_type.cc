#include "base/data_type.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace ckpt {
namespace {

struct TypeFacts {
  v1::DType dtype;
  std::uint32_t size;
  std::string_view name;
};

constexpr std::array kTypes = std::to_array<TypeFacts>({
    {v1::DTYPE_BOOL, 1, "bool"},
    {v1::DTYPE_UINT8, 1, "uint8"},
    {v1::DTYPE_INT8, 1, "int8"},
    {v1::DTYPE_UINT16, 2, "uint16"},
    {v1::DTYPE_INT16, 2, "int16"},
    {v1::DTYPE_UINT32, 4, "uint32"},
    {v1::DTYPE_INT32, 4, "int32"},
    {v1::DTYPE_UINT64, 8, "uint64"},
    {v1::DTYPE_INT64, 8, "int64"},
    {v1::DTYPE_FLOAT16, 2, "float16"},
    {v1::DTYPE_BFLOAT16, 2, "bfloat16"},
    {v1::DTYPE_FLOAT32, 4, "float32"},
    {v1::DTYPE_FLOAT64, 8, "float64"},
    {v1::DTYPE_COMPLEX32, 4, "complex32"},
    {v1::DTYPE_COMPLEX64, 8, "complex64"},
    {v1::DTYPE_COMPLEX128, 16, "complex128"},
    {v1::DTYPE_FLOAT8_E4M3FN, 1, "float8_e4m3fn"},
    {v1::DTYPE_FLOAT8_E4M3FNUZ, 1, "float8_e4m3fnuz"},
    {v1::DTYPE_FLOAT8_E5M2, 1, "float8_e5m2"},
    {v1::DTYPE_FLOAT8_E5M2FNUZ, 1, "float8_e5m2fnuz"},
    {v1::DTYPE_FLOAT8_E8M0FNU, 1, "float8_e8m0fnu"},
});

const TypeFacts* Find(v1::DType dtype) {
  const auto* it = std::find_if(kTypes.begin(), kTypes.end(), [&](const TypeFacts& t) { return t.dtype == dtype; });
  return it == kTypes.end() ? nullptr : &*it;
}

}  // namespace

std::uint32_t ElementSize(v1::DType dtype) {
  const TypeFacts* facts = Find(dtype);
  return facts == nullptr ? 0 : facts->size;
}

std::string_view DTypeName(v1::DType dtype) {
  const TypeFacts* facts = Find(dtype);
  return facts == nullptr ? std::string_view() : facts->name;
}

std::optional<v1::DType> DTypeFromName(std::string_view name) {
  const auto* it = std::find_if(kTypes.begin(), kTypes.end(), [&](const TypeFacts& t) { return t.name == name; });
  if (it == kTypes.end()) return std::nullopt;
  return it->dtype;
}

absl::StatusOr<std::uint64_t> ElementCount(const v1::Tensor& tensor) {
  std::uint64_t count = 1;
  // A zero anywhere makes the product zero, whatever the other extents are.
  if (std::find(tensor.shape().begin(), tensor.shape().end(), 0U) != tensor.shape().end()) return 0;
  for (const std::uint64_t extent : tensor.shape()) {
    if (__builtin_mul_overflow(count, extent, &count) || count > std::numeric_limits<std::int64_t>::max())
      return MakeError(absl::StatusCode::kInvalidArgument, "SHAPE_TOO_LARGE",
                       absl::StrCat("tensor ", tensor.path(), ": its shape has more than 2^63 elements"));
  }
  return count;
}

absl::StatusOr<std::uint64_t> SizeBytes(const v1::Tensor& tensor) {
  const std::uint64_t element = ElementSize(tensor.dtype());
  if (element == 0)
    return MakeError(absl::StatusCode::kInvalidArgument, "UNKNOWN_DTYPE",
                     absl::StrCat("tensor ", tensor.path(), ": unknown dtype ", tensor.dtype()));
  CKPT_ASSIGN_OR_RETURN(std::uint64_t size, ElementCount(tensor));
  if (__builtin_mul_overflow(size, element, &size) || size > std::numeric_limits<std::int64_t>::max())
    return MakeError(absl::StatusCode::kInvalidArgument, "SHAPE_TOO_LARGE",
                     absl::StrCat("tensor ", tensor.path(), ": its shape has more than 2^63 bytes"));
  return size;
}

absl::StatusOr<std::uint64_t> ViewExtentBytes(const v1::Tensor& view) {
  CKPT_ASSIGN_OR_RETURN(const std::uint64_t size, SizeBytes(view));
  const auto bad = [&](std::string_view what) {
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_TENSOR",
                     absl::StrCat("tensor ", view.path(), ": ", absl::string_view(what.data(), what.size())));
  };
  if (view.strides_size() != 0 && view.strides_size() != view.shape_size())
    return bad("it has not as many strides as dimensions");
  if (size == 0 || view.strides_size() == 0) return size;
  std::uint64_t last = 0;  // where the last element is, counted in elements
  for (int d = 0; d < view.shape_size(); ++d) {
    std::uint64_t reach = 0;
    if (view.strides(d) < 0 ||
        __builtin_mul_overflow(view.shape(d) - 1, static_cast<std::uint64_t>(view.strides(d)), &reach) ||
        __builtin_add_overflow(last, reach, &last))
      return bad("its strides are negative or too large");
  }
  std::uint64_t extent = 0;
  if (__builtin_add_overflow(last, 1, &extent) || __builtin_mul_overflow(extent, ElementSize(view.dtype()), &extent) ||
      extent > std::numeric_limits<std::int64_t>::max())
    return bad("its strides are too large");
  return extent;
}

bool IsRowMajor(const v1::Tensor& tensor) {
  if (tensor.strides().empty()) return true;
  const auto order = DenseOrder(tensor);
  if (!order.has_value()) return false;
  // Extents of 1 do not decide, so compare the order of the others only.
  int last = -1;
  for (const int dim : *order) {
    if (tensor.shape(dim) == 1) continue;
    if (dim < last) return false;
    last = dim;
  }
  return true;
}

std::optional<std::vector<int>> DenseOrder(const v1::Tensor& tensor) {
  const int dims = tensor.shape_size();
  std::vector<int> order(static_cast<std::size_t>(dims));
  std::iota(order.begin(), order.end(), 0);
  if (tensor.strides().empty()) return order;
  if (tensor.strides_size() != dims) return std::nullopt;
  if (std::find(tensor.shape().begin(), tensor.shape().end(), 0U) != tensor.shape().end()) return order;
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return tensor.strides(a) > tensor.strides(b); });
  std::uint64_t expected = 1;
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    const std::uint64_t extent = tensor.shape(*it);
    if (extent == 1) continue;
    if (tensor.strides(*it) < 0 || static_cast<std::uint64_t>(tensor.strides(*it)) != expected) return std::nullopt;
    if (__builtin_mul_overflow(expected, extent, &expected)) return std::nullopt;
  }
  return order;
}

}  // namespace ckpt
