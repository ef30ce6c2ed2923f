// What follows from a tensor's description.
#pragma once

#include <cstdint>
#include <string_view>

#include "ckpt/v1/state.pb.h"

namespace ckpt {

// torch's name of a type without "torch.": "bfloat16". "" for an unknown type.
std::string_view DTypeName(v1::DType dtype);

// Bytes of all elements, shape times element size; 0 for a description that the server would refuse.
std::uint64_t TensorSizeBytes(const v1::Tensor& tensor);

}  // namespace ckpt
