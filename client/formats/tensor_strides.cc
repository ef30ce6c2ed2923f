#include "client/formats/tensor_strides.h"

#include <algorithm>

namespace ckpt::formats {

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

}  // namespace ckpt::formats
