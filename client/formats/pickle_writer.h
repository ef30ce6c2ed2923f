// Writes a state as the pickle that torch.save would write.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "ckpt/v1/state.pb.h"

namespace ckpt::formats {

// Where a tensor's bytes are in the file.
struct PickledStorage {
  std::uint64_t key = 0;  // the entry "data/KEY"
  std::uint64_t size_bytes = 0;
  // The element type if all of its views have it and torch has a typed storage of it, else unspecified.
  v1::DType dtype = v1::DTYPE_UNSPECIFIED;
};

// An array is in the pickle itself, as text, so it may not have more bytes.
inline constexpr std::uint64_t kMaxArrayBytes = 1U << 30;

// What WritePickle needs besides the nodes.
struct PickleSource {
  std::span<const v1::Tensor> tensors;
  std::span<const PickledStorage> storages;  // of each tensor number: its own, or the one that it shows
  std::span<const std::string> array_bytes;  // of each tensor number that is an array's: its bytes in memory order
};

// The pickle, of protocol 2 and with those opcodes only that torch.load(weights_only=True) takes, wherever it takes the
// value at all. Errors: InvalidArgument, with the path, for what a pickle cannot hold.
absl::StatusOr<std::string> WritePickle(std::span<const v1::StateNode> nodes, const PickleSource& source);

}  // namespace ckpt::formats
