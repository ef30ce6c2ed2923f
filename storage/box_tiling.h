// Puts the boxes of a tensor that several ranks sent together.
#pragma once

#include "absl/status/status.h"
#include "ckpt/v1/state.pb.h"

namespace ckpt::storage {

// Sorts the tensor's boxes, each of which lies within it and knows its chunks (or, where the tensor is small enough,
// has its bytes), drops repetitions, and checks that the rest tile the tensor exactly. A small one's bytes are then
// inline, in the tensor itself. InvalidArgument, with the path: BOXES_DO_NOT_TILE, RANKS_DIFFER (two of the same place
// have other bytes), TENSOR_TOO_LARGE.
absl::Status TileBoxes(v1::Tensor& tensor);

}  // namespace ckpt::storage
