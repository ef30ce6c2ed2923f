#include "client/tensor_set.h"

#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/data_type.h"
#include "base/state_walk.h"
#include "base/status.h"

namespace ckpt::client {
namespace {

absl::Status Bad(std::uint64_t number, const v1::Tensor& tensor, std::string_view what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "BAD_TENSOR",
                   absl::StrCat("tensor ", tensor.path().empty() ? absl::StrCat("number ", number) : tensor.path(),
                                ": ", absl::string_view(what.data(), what.size())));
}

}  // namespace

absl::Status TensorSet::CheckView(const v1::Tensor& view) const {
  const std::uint64_t number = tensors_.size();
  if (view.view_of() >= number || tensors_[view.view_of()].meta.has_view_of())
    return Bad(number, view, "add the tensor that it is a view of first; that one must be no view");
  CKPT_ASSIGN_OR_RETURN(const std::uint64_t extent, ViewExtentBytes(view));
  const std::uint64_t shown = tensors_[view.view_of()].bytes.size();
  if (view.view_offset_bytes() > shown || extent > shown - view.view_offset_bytes())
    return Bad(number, view, "it reaches beyond the bytes that it is a view of");
  return absl::OkStatus();
}

absl::StatusOr<std::uint64_t> TensorSet::Add(const Tensor& tensor) {
  const std::uint64_t number = tensors_.size();
  const v1::Tensor& meta = tensor.meta;
  CKPT_ASSIGN_OR_RETURN(const std::uint64_t size, SizeBytes(meta));
  if (meta.boxes_size() != 0 || !meta.inline_data().empty())
    return Bad(number, meta, "its bytes are given by Tensor::data, not by boxes or inline_data");
  Bytes bytes;
  if (meta.has_view_of()) {
    if (tensor.data != nullptr) return Bad(number, meta, "a view has no bytes of its own: leave its data null");
    CKPT_RETURN_IF_ERROR(CheckView(meta));
    tensors_[meta.view_of()].viewed = true;
  } else {
    if (meta.view_offset_bytes() != 0) return Bad(number, meta, "it has a view's offset and is no view");
    if (!DenseOrder(meta).has_value())
      return Bad(number, meta, "its strides are not a dense layout; make it contiguous, or a view of its storage");
    if (tensor.data == nullptr && size != 0) return Bad(number, meta, "its data is null");
    bytes = {static_cast<const std::byte*>(tensor.data), size};
    total_bytes_ += size;
  }
  tensors_.push_back({meta, bytes, false});
  return number;
}

absl::Status TensorSet::Place(std::span<const v1::StateNode> nodes) {
  std::vector<bool> placed(tensors_.size());
  StateWalk walk;
  for (const v1::StateNode& node : nodes) {
    CKPT_RETURN_IF_ERROR(walk.Next(node));
    if (const std::size_t size = node.ByteSizeLong(); size > kMaxNodeBytes)
      return MakeError(absl::StatusCode::kInvalidArgument, "TOO_LARGE",
                       absl::StrCat(walk.path(), ": a value of ", size, " bytes, more than the ", kMaxNodeBytes,
                                    " that it may have; keep data of this size in a tensor"));
    if (!HasTensor(node.kind())) continue;
    const std::uint64_t number = node.tensor();
    if (number >= tensors_.size())
      return MakeError(absl::StatusCode::kInvalidArgument, "BAD_STATE",
                       absl::StrCat(walk.path(), ": there is no tensor number ", number));
    if (placed[number]) continue;  // stands in the tree again: the first place names it
    placed[number] = true;
    tensors_[number].meta.set_path(walk.path());
    tensors_[number].meta.set_component(walk.component());
  }
  if (!walk.Complete())
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_STATE", "the state's nodes are not one whole tree");
  for (std::uint64_t i = 0; i < tensors_.size(); ++i)
    if (!placed[i] && !tensors_[i].viewed)
      return MakeError(absl::StatusCode::kInvalidArgument, "BAD_STATE",
                       absl::StrCat("tensor number ", i, " is nowhere in the state tree, and no view shows it"));
  return absl::OkStatus();
}

}  // namespace ckpt::client
