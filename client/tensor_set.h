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
  // What one trainer saves: all of a state, or its part of one that several save.
  enum class Of { kState, kPart };

  explicit TensorSet(Of of = Of::kState) : of_(of) {}

  // Takes the next tensor and returns its number. Its bytes stay where they are. InvalidArgument (BAD_TENSOR, …) if its
  // parts do not fit together.
  absl::StatusOr<std::uint64_t> Add(const Tensor& tensor);

  // Gives the tensors the paths and components that they have in the tree. InvalidArgument (BAD_STATE) for a malformed
  // tree, a number that no tensor has, or a tensor that is neither in it nor shown by a view.
  absl::Status Place(std::span<const v1::StateNode> nodes);

  [[nodiscard]] std::uint64_t count() const { return tensors_.size(); }
  // Its boxes are those of a part that are saved here; a whole state's tensors have none.
  [[nodiscard]] const v1::Tensor& meta(std::uint64_t tensor) const { return tensors_[tensor].meta; }
  // Bytes of the whole; a view has none of its own.
  [[nodiscard]] std::uint64_t whole_bytes(std::uint64_t tensor) const { return tensors_[tensor].whole_bytes; }
  // The memory of what is saved here of the tensor: of each box, or the whole.
  [[nodiscard]] std::span<const Bytes> pieces(std::uint64_t tensor) const {
    return std::span(pieces_).subspan(tensors_[tensor].first_piece, tensors_[tensor].piece_count);
  }
  // Of all pieces.
  [[nodiscard]] std::uint64_t total_bytes() const { return total_bytes_; }

 private:
  struct Entry {
    v1::Tensor meta;
    std::uint64_t whole_bytes = 0;
    std::size_t first_piece = 0;
    std::size_t piece_count = 0;
    bool viewed = false;
  };
  absl::Status AddView(Entry& entry, const Tensor& tensor);
  absl::Status AddWhole(Entry& entry, const Tensor& tensor);
  absl::Status AddBox(Entry& entry, const TensorBox& box);
  void AddPiece(Entry& entry, const void* data, std::uint64_t size_bytes);

  const Of of_;
  std::vector<Entry> tensors_;
  std::vector<Bytes> pieces_;
  std::uint64_t total_bytes_ = 0;
};

}  // namespace ckpt::client
