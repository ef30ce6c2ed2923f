// From a pickle's graph to a state.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "ckpt/state.h"
#include "client/formats/pickle_value.h"

namespace ckpt::formats {

// The bytes of the storage with this key; nothing if there is none.
using StorageLookup = std::function<std::optional<std::string_view>(std::string_view key)>;

// Lays the graph out as a tree. Containers that stand in it more than once become equal copies; a tensor that does
// stays one tensor. Tensors that share a storage become views: of the first of them, if they are all the same, else of
// a tensor "storage:N" that holds the bytes which they reach. Arrays' bytes are the graph's, storages' are what
// `lookup` gave; both must outlive the state.
// Errors: InvalidArgument, with the path, for what a state cannot hold: other types, cycles, more than
// kMaxStateDepth levels, or references that multiply to more nodes than 16 a byte of the pickle. DataLoss for a
// missing or short storage.
absl::StatusOr<State> LayOutState(const PickleGraph& graph, std::uint64_t pickle_size, const StorageLookup& lookup);

}  // namespace ckpt::formats
