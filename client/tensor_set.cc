#include "client/tensor_set.h"

#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/box.h"
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

void TensorSet::AddPiece(Entry& entry, const void* data, std::uint64_t size_bytes) {
  pieces_.emplace_back(static_cast<const std::byte*>(data), size_bytes);
  ++entry.piece_count;
  total_bytes_ += size_bytes;
}

absl::Status TensorSet::AddView(Entry& entry, const Tensor& tensor) {
  const v1::Tensor& view = tensor.meta;
  const std::uint64_t number = tensors_.size();
  if (of_ == Of::kPart) return Bad(number, view, "it is a view, which one part of a state cannot have");
  if (tensor.data != nullptr) return Bad(number, view, "a view has no bytes of its own: leave its data null");
  if (view.view_of() >= number || tensors_[view.view_of()].meta.has_view_of())
    return Bad(number, view, "add the tensor that it is a view of first; that one must be no view");
  CKPT_ASSIGN_OR_RETURN(const std::uint64_t extent, ViewExtentBytes(view));
  const std::uint64_t shown = tensors_[view.view_of()].whole_bytes;
  if (view.view_offset_bytes() > shown || extent > shown - view.view_offset_bytes())
    return Bad(number, view, "it reaches beyond the bytes that it is a view of");
  entry.whole_bytes = 0;
  tensors_[view.view_of()].viewed = true;
  return absl::OkStatus();
}

absl::Status TensorSet::AddWhole(Entry& entry, const Tensor& tensor) {
  if (!DenseOrder(tensor.meta).has_value())
    return Bad(tensors_.size(), tensor.meta,
               "its strides are not a dense layout; make it contiguous, or a view of its storage");
  if (entry.whole_bytes == 0) return absl::OkStatus();
  if (tensor.data == nullptr) return Bad(tensors_.size(), tensor.meta, "its data is null");
  if (of_ == Of::kPart) *entry.meta.add_boxes() = WholeBox(tensor.meta);
  AddPiece(entry, tensor.data, entry.whole_bytes);
  return absl::OkStatus();
}

absl::Status TensorSet::AddBox(Entry& entry, const TensorBox& box) {
  const std::uint64_t number = tensors_.size();
  const auto dims = static_cast<std::size_t>(entry.meta.shape_size());
  if (box.offset.size() != dims || box.shape.size() != dims)
    return Bad(number, entry.meta, "a box has not as many dimensions as it");
  for (std::size_t i = 0; i < dims; ++i) {
    const std::uint64_t extent = entry.meta.shape(static_cast<int>(i));
    if (box.offset[i] > extent || box.shape[i] > extent - box.offset[i])
      return Bad(number, entry.meta, "a box reaches beyond it");
  }
  v1::Box to;
  to.mutable_offset()->Add(box.offset.begin(), box.offset.end());
  to.mutable_shape()->Add(box.shape.begin(), box.shape.end());
  const std::uint64_t size = BoxBytes(entry.meta, to);
  if (size == 0) return absl::OkStatus();
  if (box.data == nullptr) return Bad(number, entry.meta, "the data of a box is null");
  *entry.meta.add_boxes() = std::move(to);
  AddPiece(entry, box.data, size);
  return absl::OkStatus();
}

absl::StatusOr<std::uint64_t> TensorSet::Add(const Tensor& tensor) {
  const std::uint64_t number = tensors_.size();
  Entry entry{.meta = tensor.meta, .first_piece = pieces_.size()};
  CKPT_ASSIGN_OR_RETURN(entry.whole_bytes, SizeBytes(entry.meta));
  if (entry.meta.boxes_size() != 0 || !entry.meta.inline_data().empty())
    return Bad(number, entry.meta, "its bytes are given by Tensor::data or boxes, not in its meta");
  if (tensor.boxes.has_value() &&
      (of_ == Of::kState || tensor.data != nullptr || entry.meta.has_view_of() || !entry.meta.strides().empty()))
    return Bad(number, entry.meta,
               "boxes are for one part of a save by several trainers, and of a row-major tensor without other data");
  if (entry.meta.has_view_of()) {
    CKPT_RETURN_IF_ERROR(AddView(entry, tensor));
  } else if (entry.meta.view_offset_bytes() != 0) {
    return Bad(number, entry.meta, "it has a view's offset and is no view");
  } else if (tensor.boxes.has_value()) {
    for (const TensorBox& box : *tensor.boxes) CKPT_RETURN_IF_ERROR(AddBox(entry, box));
  } else {
    CKPT_RETURN_IF_ERROR(AddWhole(entry, tensor));
  }
  tensors_.push_back(std::move(entry));
  return number;
}

absl::Status TensorSet::Place(std::span<const v1::StateNode> nodes) {
  if (of_ == Of::kPart && nodes.empty() && tensors_.empty()) return absl::OkStatus();
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
