// Cuts a state's description into the records of its manifest, as it comes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/digest.h"
#include "ckpt/v1/storage.pb.h"

namespace ckpt::storage {

// Equal states make equal records, and a change in one part leaves the others as they are: parts are cut by size alone.
// Memory is bounded by a part and 50 bytes for each part before. Not thread-safe.
class ManifestBuilder {
 public:
  // Takes each finished part's record.
  using Sink = std::function<void(const Digest& digest, std::string record)>;

  ManifestBuilder(std::uint32_t chunk_size, Sink sink);

  // Nodes and tensors come in their order; they may be mixed.
  void AddNode(const v1::StateNode& node);
  void AddTensor(const v1::Tensor& tensor, std::uint64_t logical_bytes);

  [[nodiscard]] std::uint64_t part_count() const { return static_cast<std::uint64_t>(root_.parts_size()); }
  [[nodiscard]] std::uint64_t node_count() const { return root_.node_count(); }
  [[nodiscard]] std::uint64_t tensor_count() const { return root_.tensor_count(); }
  [[nodiscard]] std::uint64_t logical_bytes() const { return root_.logical_bytes(); }

  // Gives the last parts to the sink and returns the root. Its record is its serialised form.
  v1::ManifestRoot Finish(const std::vector<std::string>& components);

 private:
  struct Open {
    v1::ManifestPart part;
    std::uint64_t first = 0;
    std::size_t size_bytes = 0;
  };
  void Cut(Open& open, bool tensors);

  Sink sink_;
  v1::ManifestRoot root_;
  Open nodes_;
  Open tensors_;
};

}  // namespace ckpt::storage
