// Boxes: n-dimensional parts of tensors. They count in the tensor's dimensions in memory order (see v1::Box).
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "ckpt/v1/state.pb.h"

namespace ckpt {

// Boxes of one tensor: each is compared with others.
inline constexpr int kMaxBoxes = 8192;

// The whole tensor, whose layout must be dense.
v1::Box WholeBox(const v1::Tensor& tensor);

// Bytes of a box that lies within a tensor of that type.
std::uint64_t BoxBytes(const v1::Tensor& tensor, const v1::Box& box);

// InvalidArgument BAD_BOX unless the box has elements and lies within the tensor, whose layout is dense.
absl::Status CheckBox(const v1::Tensor& tensor, const v1::Box& box);

// The order of a tensor's boxes at rest: by offset, then shape.
bool IsBefore(const v1::Box& a, const v1::Box& b);

// The tensor's boxes lie within it and are in order. InvalidArgument BOXES_DO_NOT_TILE, with the path, unless each of
// its elements is in just one of them, and they are at most kMaxBoxes.
absl::Status CheckTiling(const v1::Tensor& tensor);

}  // namespace ckpt
