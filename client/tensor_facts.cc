#include "ckpt/tensor_facts.h"

#include "base/data_type.h"

namespace ckpt {

std::uint64_t TensorSizeBytes(const v1::Tensor& tensor) { return SizeBytes(tensor).value_or(0); }

}  // namespace ckpt
