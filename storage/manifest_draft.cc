#include "storage/manifest_draft.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/state_walk.h"
#include "base/status.h"
#include "storage/limits.h"

namespace ckpt::storage {

ManifestDraft::ManifestDraft(std::uint32_t chunk_size, Sink sink)
    : sink_(std::move(sink)), builder_(chunk_size, [this](const Digest& digest, std::string record) {
        used_.push_back({{true, digest}, 0});
        sink_status_.Update(sink_(RecordKind::kManifestPart, digest, std::move(record)));
      }) {}

absl::Status ManifestDraft::Check() const {
  CKPT_RETURN_IF_ERROR(sink_status_);
  if (builder_.part_count() <= kMaxManifestParts) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kInvalidArgument, "TOO_LARGE",
      "the description of the state (small tensors, texts and other values) is too large; keep its data in "
      "tensors of 4 KiB and more");
}

absl::Status ManifestDraft::AddTensor(const v1::Tensor& tensor, std::uint64_t size_bytes) {
  if (tensor.boxes_size() != 0) {
    CKPT_ASSIGN_OR_RETURN(const std::uint32_t component, ComponentIndex(tensor));
    for (const v1::Box& box : tensor.boxes())
      for (std::size_t i = 0; i < box.digests().size() / Digest::kSize; ++i)
        used_.push_back({{false, Digest::At(box.digests(), i)}, component});
  }
  builder_.AddTensor(tensor, size_bytes);
  return Check();
}

absl::Status ManifestDraft::AddNode(const v1::StateNode& node) {
  ++node_count_;
  builder_.AddNode(node);
  return Check();
}

absl::StatusOr<std::uint32_t> ManifestDraft::ComponentIndex(const v1::Tensor& tensor) {
  const auto known = component_index_.find(tensor.component());
  if (known != component_index_.end()) return known->second;
  if (components_.size() > kMaxComponents)
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_STATE",
                     absl::StrCat("tensor ", tensor.path(), ": a state has ", kMaxComponents,
                                  " components at most; where the top level has more keys, its tensors are in none"));
  const auto index = static_cast<std::uint32_t>(components_.size());
  component_index_.emplace(tensor.component(), index);
  components_.push_back(tensor.component());
  return index;
}

absl::StatusOr<Digest> ManifestDraft::Finish(const std::vector<std::string>& components) {
  root_ = builder_.Finish(components);
  CKPT_RETURN_IF_ERROR(sink_status_);
  std::string record = root_.SerializeAsString();
  const Digest digest = Sha256(record);
  used_.push_back({{true, digest}, 0});
  CKPT_RETURN_IF_ERROR(sink_(RecordKind::kManifestRoot, digest, std::move(record)));
  return digest;
}

}  // namespace ckpt::storage
