// A checkpoint's description as a Restore stream brings it, checked: nothing in it is trusted.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/digest.h"
#include "base/state_walk.h"
#include "ckpt/v1/service.pb.h"
#include "client/chunk_layout.h"

namespace ckpt::client {

// What Take has checked: sizes fit, each chunk has a digest and a fingerprint, numbers of tensors exist.
struct Manifest {
  v1::Checkpoint checkpoint;
  std::vector<v1::StateNode> nodes;
  std::vector<v1::Tensor> tensors;
  std::vector<std::uint64_t> size_bytes;  // of each tensor; a view's are in the tensor that it shows
  std::optional<ChunkLayout> layout;      // set with the header

  [[nodiscard]] Fingerprint fingerprint(ChunkLayout::Place place) const {
    const ChunkLayout::BoxPlace in_box = layout->InBox(place);
    return Fingerprint::At(tensors[place.tensor].boxes(static_cast<int>(in_box.box)).fingerprints(), in_box.index);
  }

  // "run resnet50 epoch 3 version 1", for messages.
  [[nodiscard]] std::string Name() const;
};

// Puts a manifest together from the messages of a stream that selects everything, in their order. Not thread-safe.
class ManifestReader {
 public:
  // Takes the next message. After an error the stream is of no use. DataLoss (MALFORMED_MANIFEST) for what does not
  // make sense.
  absl::Status Take(v1::RestoreResponse message);

  // True when PayloadStart has come.
  [[nodiscard]] bool complete() const { return complete_; }

  // When complete.
  [[nodiscard]] Manifest& manifest() { return manifest_; }

 private:
  absl::Status TakeHeader(v1::RestoreHeader& header);
  absl::Status TakeNodes(v1::StatePart& part);
  absl::Status TakeTensors(v1::TensorPart& part);
  absl::Status CheckTensor(const v1::Tensor& tensor, std::uint64_t size_bytes) const;
  absl::Status CheckWhole() const;

  Manifest manifest_;
  StateWalk walk_;
  bool complete_ = false;
};

}  // namespace ckpt::client
