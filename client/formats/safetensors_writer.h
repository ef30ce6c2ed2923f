// Writes a .safetensors file.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "ckpt/formats.h"

namespace ckpt::formats {

// As StateFileWriter::Create of ckpt/formats.h. The state must be mappings of tensors; a tensor's name is its keys
// joined with
// '.'. A root with a single key, under which a mapping is, leaves that key out of the names: one component's tensors
// have the names that its module gives them. Attributes are left out, but for the root's "__metadata__".
// Tensors are written row-major, and those that share memory each with bytes of its own. The bytes behind one whose
// elements are not in that order are kept in the temporary file until all are there: the disk has room for them too,
// meanwhile.
absl::StatusOr<std::unique_ptr<StateFileWriter>> CreateSafetensorsWriter(const std::string& path,
                                                                         std::span<const v1::StateNode> nodes,
                                                                         std::span<const v1::Tensor> tensors,
                                                                         const StateFileWriter::Options& options);

}  // namespace ckpt::formats
