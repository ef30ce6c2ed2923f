// Takes a save's tensors as they come: checks each description, and that its chunks are just the bytes that it
// announces.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/digest.h"
#include "ckpt/v1/state.pb.h"

namespace ckpt::storage {

// Not thread-safe. Memory: some 40 bytes a tensor, and the tensor at hand.
class TensorIntake {
 public:
  // What one trainer sends: the whole of each tensor, or the boxes of it that are this rank's.
  enum class Take { kWhole, kBoxes };

  TensorIntake(std::uint32_t chunk_size, Take take) : chunk_size_(chunk_size), take_(take) {}

  // Starts the next tensor. Errors: InvalidArgument, with the path; FailedPrecondition OUT_OF_ORDER while the last one
  // lacks chunks.
  absl::Status Begin(v1::Tensor header);

  // Takes the next chunk of the tensor. InvalidArgument WRONG_SIZE when none is due, or not of this size.
  absl::Status AddChunk(const Fingerprint& fingerprint, std::uint64_t size_bytes);

  // The digest of the first chunk that was taken and has none yet.
  void AddDigest(const Digest& digest);

  // True when the tensor at hand has all its chunks; it is whole when they have their digests, too.
  [[nodiscard]] bool Complete() const { return chunks_ == wanted_chunks_; }

  // The tensor at hand, its number, the bytes of its whole that it adds to the checkpoint, and the next chunk's index,
  // counted over its boxes, and size.
  [[nodiscard]] const v1::Tensor& tensor() const { return tensor_; }
  [[nodiscard]] std::uint64_t number() const { return places_.size() - 1; }
  [[nodiscard]] std::uint64_t size_bytes() const { return tensor_.has_view_of() ? 0 : size_; }
  [[nodiscard]] std::uint64_t next_chunk() const { return chunks_; }
  [[nodiscard]] std::uint64_t next_chunk_size() const;

  [[nodiscard]] std::uint64_t count() const { return places_.size(); }

  // A node of the tree stands at this path and shows this tensor.
  absl::Status Place(std::uint64_t number, std::string_view path, std::string_view component);

  // InvalidArgument when a tensor is neither in the tree nor seen through a view.
  absl::Status CheckAllPlaced() const;

 private:
  absl::Status CheckView();
  absl::Status CheckWhole();
  absl::Status CheckBoxes();
  absl::Status ExpectChunks();
  void EnterBox();

  const std::uint32_t chunk_size_;
  const Take take_;
  v1::Tensor tensor_;
  std::uint64_t size_ = 0;
  std::uint64_t chunks_ = 0;
  std::uint64_t wanted_chunks_ = 0;
  // The box that the next chunk belongs to, and the one that the next digest does, or an earlier one.
  int box_ = 0;
  int digest_box_ = 0;
  std::uint64_t box_left_ = 0;  // bytes of it to come

  // By number.
  struct PlaceOf {
    Fingerprint name;     // of path and component
    std::uint64_t bytes;  // its own; of a view 0
    bool is_view;
    bool placed;  // in the tree
    bool viewed;  // by a view
  };
  std::vector<PlaceOf> places_;
};

}  // namespace ckpt::storage
