// The tensors of a save: what the caller gave, checked.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/digest.h"
#include "ckpt/state.h"

namespace ckpt::client {

// Not thread-safe.
class TensorSet {
 public:
  // Takes the next tensor and returns its number. Its bytes stay where they are. InvalidArgument (BAD_TENSOR, …) if its
  // parts do not fit together.
  absl::StatusOr<std::uint64_t> Add(const Tensor& tensor);

  // Gives the tensors the paths and components that they have in the tree. InvalidArgument (BAD_STATE) for a malformed
  // tree, a number that no tensor has, or a tensor that is neither in it nor shown by a view.
  absl::Status Place(std::span<const v1::StateNode> nodes);

  [[nodiscard]] std::uint64_t count() const { return tensors_.size(); }
  [[nodiscard]] const v1::Tensor& meta(std::uint64_t tensor) const { return tensors_[tensor].meta; }
  // Its bytes; a view has none of its own.
  [[nodiscard]] Bytes bytes(std::uint64_t tensor) const { return tensors_[tensor].bytes; }
  // Of all tensors.
  [[nodiscard]] std::uint64_t total_bytes() const { return total_bytes_; }

 private:
  struct Entry {
    v1::Tensor meta;
    Bytes bytes;
    bool viewed = false;
  };
  absl::Status CheckView(const v1::Tensor& view) const;

  std::vector<Entry> tensors_;
  std::uint64_t total_bytes_ = 0;
};

}  // namespace ckpt::client
