// A manifest in the making, and the records that it is made of.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/digest.h"
#include "ckpt/v1/state.pb.h"
#include "storage/manifest_builder.h"
#include "storage/pack_record.h"
#include "storage/version_table.h"

namespace ckpt::storage {

// Not thread-safe. Memory: some 64 bytes for each chunk.
class ManifestDraft {
 public:
  // Takes the manifest's records.
  using Sink = std::function<absl::Status(RecordKind kind, const Digest& digest, std::string record)>;

  ManifestDraft(std::uint32_t chunk_size, Sink sink);

  // Tensors and nodes come in their order. `size_bytes` is what the tensor adds to the checkpoint. Errors: the sink's;
  // InvalidArgument beyond a limit.
  absl::Status AddTensor(const v1::Tensor& tensor, std::uint64_t size_bytes);
  absl::Status AddNode(const v1::StateNode& node);

  // The rest, and the root, whose digest it returns.
  absl::StatusOr<Digest> Finish(const std::vector<std::string>& components);

  [[nodiscard]] std::uint64_t node_count() const { return node_count_; }
  // When finished: what a version of it is to refer to, and its numbers.
  [[nodiscard]] const v1::ManifestRoot& root() const { return root_; }
  [[nodiscard]] std::vector<UsedRecord> TakeUsed() { return std::move(used_); }
  [[nodiscard]] std::vector<std::string> TakeComponents() { return std::move(components_); }

 private:
  absl::Status Check() const;
  absl::StatusOr<std::uint32_t> ComponentIndex(const v1::Tensor& tensor);

  const Sink sink_;
  absl::Status sink_status_;
  ManifestBuilder builder_;
  v1::ManifestRoot root_;
  std::uint64_t node_count_ = 0;
  std::vector<UsedRecord> used_;
  std::vector<std::string> components_{""};
  absl::flat_hash_map<std::string, std::uint32_t> component_index_{{"", 0}};
};

}  // namespace ckpt::storage
