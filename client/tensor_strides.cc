#include "client/tensor_strides.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/data_type.h"
#include "base/status.h"
#include "base/utf8.h"

namespace ckpt::client {

std::vector<std::int64_t> StridesOf(const v1::Tensor& tensor) {
  if (!tensor.strides().empty()) return {tensor.strides().begin(), tensor.strides().end()};
  std::vector<std::int64_t> strides(static_cast<std::size_t>(tensor.shape_size()));
  std::uint64_t step = 1;
  for (int d = tensor.shape_size(); d-- > 0;) {
    strides[static_cast<std::size_t>(d)] = static_cast<std::int64_t>(step);
    step *= std::max<std::uint64_t>(tensor.shape(d), 1);
  }
  return strides;
}

absl::StatusOr<std::uint64_t> ReachBytes(const v1::Tensor& tensor) {
  CKPT_ASSIGN_OR_RETURN(const std::uint64_t size, SizeBytes(tensor));
  if (size == 0 || tensor.strides().empty()) return size;
  std::uint64_t elements = 1;
  bool fits = tensor.strides_size() == tensor.shape_size();
  for (int d = 0; d < tensor.shape_size() && fits; ++d) {
    std::uint64_t reach = 0;
    fits = tensor.strides(d) >= 0 &&
           !__builtin_mul_overflow(tensor.shape(d) - 1, static_cast<std::uint64_t>(tensor.strides(d)), &reach) &&
           !__builtin_add_overflow(elements, reach, &elements);
  }
  std::uint64_t bytes = 0;
  if (!fits || __builtin_mul_overflow(elements, std::uint64_t{ElementSize(tensor.dtype())}, &bytes))
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_TENSOR",
                     absl::StrCat("tensor ", PrintableUtf8(tensor.path()), ": its strides do not fit its shape"));
  return bytes;
}

}  // namespace ckpt::client
