// A tensor's digest, for people and programs to compare tensors by.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "ckpt/v1/state.pb.h"

namespace ckpt {

// 64 lower-case hex digits: equal for tensors of the same bytes, shape and cut. SHA-256 over, for each box in order:
// the number of its dimensions (4 bytes), its offset and its shape (8 bytes each number), then the SHA-256 of each of
// its chunks; numbers are little-endian. An inline tensor counts as one box, itself in memory order, of one chunk; one
// without elements as no box. A view that shows the whole of another tensor as that is has its digest; any other view
// that of: the other's digest (32 bytes), view_offset_bytes (8), the number of dimensions (4), shape and strides (8
// each).
std::string TensorDigest(std::span<const v1::Tensor> tensors, std::uint64_t number);

}  // namespace ckpt
