// Steps between a tensor's elements.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "ckpt/v1/state.pb.h"

namespace ckpt::client {

// The tensor's strides in elements; where it has none of its own, those of row-major memory as torch counts them.
std::vector<std::int64_t> StridesOf(const v1::Tensor& tensor);

// Bytes from the first element to the end of the last; 0 without elements. InvalidArgument for an unknown dtype, or for
// strides that do not fit the shape, are negative or too large.
absl::StatusOr<std::uint64_t> ReachBytes(const v1::Tensor& tensor);

}  // namespace ckpt::client
