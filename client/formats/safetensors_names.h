// Which tensors of a state a .safetensors file holds, and their names in it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "ckpt/v1/state.pb.h"

namespace ckpt::formats {

struct SafetensorsNames {
  struct Named {
    std::string name;
    std::string path;  // in the state: with the component
    std::uint64_t tensor;
  };
  std::vector<Named> tensors;  // in the tree's order
  std::vector<std::pair<std::string, std::string>> metadata;
  bool has_metadata = false;
};

// As CreateSafetensorsWriter says. InvalidArgument, with the path, for a state that is no mappings of tensors, or that
// gives a name twice.
absl::StatusOr<SafetensorsNames> NameTensors(std::span<const v1::StateNode> nodes);

}  // namespace ckpt::formats
