// Reads a .safetensors file.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "ckpt/formats.h"

namespace ckpt::formats {

// As ReadStateFile of ckpt/formats.h. The state is a mapping from names to tensors, in the header's order. A file with
// "__metadata__" gives an OrderedDict, of which that is an attribute.
absl::StatusOr<std::unique_ptr<StateFile>> ReadSafetensorsFile(const std::string& path);

}  // namespace ckpt::formats
