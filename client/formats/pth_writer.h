// Writes a .pth file that torch.load opens, with weights_only=True and mmap=True as well.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "ckpt/formats.h"

namespace ckpt::formats {

// As StateFileWriter::Create of ckpt/formats.h. The same state gives the same bytes.
absl::StatusOr<std::unique_ptr<StateFileWriter>> CreatePthWriter(const std::string& path,
                                                                 std::span<const v1::StateNode> nodes,
                                                                 std::span<const v1::Tensor> tensors,
                                                                 const StateFileWriter::Options& options);

}  // namespace ckpt::formats
