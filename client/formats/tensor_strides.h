// Steps between a tensor's elements.
#pragma once

#include <cstdint>
#include <vector>

#include "ckpt/v1/state.pb.h"

namespace ckpt::formats {

// The tensor's strides in elements; where it has none of its own, those of row-major memory as torch counts them.
std::vector<std::int64_t> StridesOf(const v1::Tensor& tensor);

}  // namespace ckpt::formats
