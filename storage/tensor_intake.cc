#include "storage/tensor_intake.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/box.h"
#include "base/data_type.h"
#include "base/status.h"
#include "base/utf8.h"
#include "storage/limits.h"

namespace ckpt::storage {
namespace {

constexpr std::size_t kMaxPath = 4096;
constexpr int kMaxDimensions = 64;

Fingerprint NameOf(std::string_view path, std::string_view component) {
  const std::array<Bytes, 3> pieces = {AsBytes(path), AsBytes(std::string_view("\0", 1)), AsBytes(component)};
  return Xxh3(pieces);
}

absl::Status Invalid(const v1::Tensor& tensor, std::string_view reason, std::string_view what) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason,
                   absl::StrCat("tensor ", PrintableUtf8(std::string_view(tensor.path()).substr(0, 200)), ": ",
                                absl::string_view(what.data(), what.size())));
}

absl::Status CheckNames(const v1::Tensor& tensor) {
  if (tensor.path().size() > kMaxPath || tensor.component().size() > kMaxPath || !IsPrintableUtf8(tensor.path()) ||
      !IsPrintableUtf8(tensor.component()))
    return Invalid(tensor, "BAD_NAME", "its path or component is not printable UTF-8 of 4096 bytes at most");
  if (tensor.device().size() > 64 || !IsPrintableUtf8(tensor.device()))
    return Invalid(tensor, "BAD_NAME", "its device is not printable UTF-8 of 64 bytes at most");
  if (tensor.shape_size() > kMaxDimensions)
    return Invalid(tensor, "BAD_TENSOR", absl::StrCat("it has more than ", kMaxDimensions, " dimensions"));
  if (!v1::Role_IsValid(tensor.role())) return Invalid(tensor, "BAD_TENSOR", "unknown role");
  return absl::OkStatus();
}

}  // namespace

absl::Status TensorIntake::CheckView() {
  if (tensor_.boxes_size() != 0 || !tensor_.inline_data().empty())
    return Invalid(tensor_, "BAD_TENSOR", "a view has bytes of its own");
  if (tensor_.view_of() >= places_.size() || places_[tensor_.view_of()].is_view)
    return Invalid(tensor_, "BAD_TENSOR", "it is a view of a tensor that does not come before it, or is a view itself");
  CKPT_ASSIGN_OR_RETURN(const std::uint64_t extent, ViewExtentBytes(tensor_));
  PlaceOf& shown = places_[tensor_.view_of()];
  if (tensor_.view_offset_bytes() > shown.bytes || extent > shown.bytes - tensor_.view_offset_bytes())
    return Invalid(tensor_, "BAD_TENSOR", "it reaches beyond the bytes that it is a view of");
  shown.viewed = true;
  return absl::OkStatus();
}

// The tensor is one box: itself, in memory order.
absl::Status TensorIntake::CheckWhole() {
  const bool small = size_ < kInlineLimit;
  if (tensor_.inline_data().size() != (small ? size_ : 0))
    return Invalid(tensor_, "WRONG_SIZE",
                   absl::StrCat("its shape says ", size_, " bytes, of which ", small ? size_ : 0,
                                " must be inline, and ", tensor_.inline_data().size(), " are"));
  const v1::Box whole = WholeBox(tensor_);
  if (tensor_.boxes_size() > 1 ||
      (tensor_.boxes_size() == 1 && tensor_.boxes(0).SerializeAsString() != whole.SerializeAsString()))
    return Invalid(tensor_, "SHARDED_TENSOR", "its box is not the whole tensor, and one trainer saves it alone");
  tensor_.clear_boxes();
  if (!small) *tensor_.add_boxes() = whole;
  return absl::OkStatus();
}

// The boxes are those that this rank sends.
absl::Status TensorIntake::CheckBoxes() {
  const bool small = size_ < kInlineLimit;
  if (size_ / chunk_size_ > kMaxChunksPerTensor || tensor_.boxes_size() > kMaxBoxes)
    return Invalid(tensor_, "TENSOR_TOO_LARGE",
                   absl::StrCat("it has ", size_, " bytes and ", tensor_.boxes_size(), " boxes, more than ",
                                kMaxChunksPerTensor, " chunks or ", kMaxBoxes, " boxes; split it"));
  if (!tensor_.inline_data().empty()) {
    if (!small || tensor_.inline_data().size() != size_ || tensor_.boxes_size() != 0)
      return Invalid(tensor_, "WRONG_SIZE",
                     "its inline bytes are not all that its shape says, or too many, or it has boxes too");
    return absl::OkStatus();
  }
  for (const v1::Box& box : tensor_.boxes()) {
    CKPT_RETURN_IF_ERROR(CheckBox(tensor_, box));
    if (!box.digests().empty() || !box.fingerprints().empty())
      return Invalid(tensor_, "BAD_BOX", "a box says what its chunks are: they follow, each by itself");
    if (box.inline_data().size() != (small ? BoxBytes(tensor_, box) : 0))
      return Invalid(tensor_, "WRONG_SIZE", "a box's inline bytes are not as many as they must be");
  }
  return absl::OkStatus();
}

absl::Status TensorIntake::Begin(v1::Tensor header) {
  if (!Complete())
    return MakeError(absl::StatusCode::kFailedPrecondition, "OUT_OF_ORDER",
                     absl::StrCat("tensor ", tensor_.path(), " has ", chunks_, " of its ", wanted_chunks_,
                                  " chunks, and another tensor comes"));
  if (places_.size() >= kMaxTensors)
    return MakeError(absl::StatusCode::kInvalidArgument, "TOO_MANY_TENSORS",
                     absl::StrCat("a state may have ", kMaxTensors, " tensors at most"));
  tensor_ = std::move(header);
  chunks_ = wanted_chunks_ = 0;
  CKPT_RETURN_IF_ERROR(CheckNames(tensor_));
  CKPT_ASSIGN_OR_RETURN(size_, SizeBytes(tensor_));
  if (tensor_.has_view_of()) {
    if (take_ == Take::kBoxes)
      return Invalid(tensor_, "SHARDED_VIEW", "it is a view, which a save by several trainers cannot have");
    CKPT_RETURN_IF_ERROR(CheckView());
  } else {
    if (tensor_.view_offset_bytes() != 0) return Invalid(tensor_, "BAD_TENSOR", "it has an offset and is no view");
    if (!DenseOrder(tensor_).has_value())
      return Invalid(tensor_, "BAD_TENSOR", "its strides are not a dense layout; save it contiguous, or as a view");
    CKPT_RETURN_IF_ERROR(take_ == Take::kWhole ? CheckWhole() : CheckBoxes());
    CKPT_RETURN_IF_ERROR(ExpectChunks());
  }
  const Fingerprint name = NameOf(tensor_.path(), tensor_.component());
  places_.push_back({name, tensor_.has_view_of() ? 0 : size_, tensor_.has_view_of(), false, false});
  return absl::OkStatus();
}

absl::Status TensorIntake::ExpectChunks() {
  if (size_ < kInlineLimit) return absl::OkStatus();
  for (const v1::Box& box : tensor_.boxes()) {
    wanted_chunks_ += (BoxBytes(tensor_, box) + chunk_size_ - 1) / chunk_size_;
    if (wanted_chunks_ > kMaxChunksPerTensor)
      return Invalid(tensor_, "TENSOR_TOO_LARGE",
                     absl::StrCat("its ", size_, " bytes are more than ", kMaxChunksPerTensor, " chunks; split it"));
  }
  box_ = -1;
  digest_box_ = 0;
  box_left_ = 0;
  EnterBox();
  return absl::OkStatus();
}

// Goes on to the next box when the one at hand has all its bytes.
void TensorIntake::EnterBox() {
  if (box_left_ == 0 && chunks_ < wanted_chunks_) box_left_ = BoxBytes(tensor_, tensor_.boxes(++box_));
}

std::uint64_t TensorIntake::next_chunk_size() const { return std::min<std::uint64_t>(chunk_size_, box_left_); }

absl::Status TensorIntake::AddChunk(const Fingerprint& fingerprint, std::uint64_t size_bytes) {
  if (Complete())
    return MakeError(absl::StatusCode::kInvalidArgument, "WRONG_SIZE",
                     places_.empty() ? "a chunk comes before any tensor"
                                     : absl::StrCat("tensor ", tensor_.path(), " has all its ", wanted_chunks_,
                                                    " chunks, and another one comes"));
  if (size_bytes != next_chunk_size())
    return Invalid(tensor_, "WRONG_SIZE",
                   absl::StrCat("chunk ", chunks_, " must have ", next_chunk_size(), " bytes, not ", size_bytes));
  tensor_.mutable_boxes(box_)->mutable_fingerprints()->append(fingerprint.view());
  ++chunks_;
  box_left_ -= size_bytes;
  EnterBox();
  return absl::OkStatus();
}

void TensorIntake::AddDigest(const Digest& digest) {
  const auto has_all = [](const v1::Box& box) {
    return box.digests().size() / Digest::kSize == box.fingerprints().size() / Fingerprint::kSize;
  };
  while (digest_box_ < box_ && has_all(tensor_.boxes(digest_box_))) ++digest_box_;
  v1::Box& box = *tensor_.mutable_boxes(digest_box_);
  CKPT_CHECK(!has_all(box));
  box.mutable_digests()->append(digest.view());
}

absl::Status TensorIntake::Place(std::uint64_t number, std::string_view path, std::string_view component) {
  if (number >= places_.size())
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_STATE",
                     absl::StrCat(absl::string_view(path.data(), path.size()), ": there is no tensor number ", number));
  PlaceOf& place = places_[number];
  // A tensor may stand in the tree again; its path is that of the first place.
  if (!place.placed && place.name != NameOf(path, component))
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_STATE",
                     absl::StrCat(absl::string_view(path.data(), path.size()), ": tensor number ", number,
                                  " was announced under another path or component"));
  place.placed = true;
  return absl::OkStatus();
}

absl::Status TensorIntake::CheckAllPlaced() const {
  const auto lost =
      std::find_if(places_.begin(), places_.end(), [](const PlaceOf& p) { return !p.placed && !p.viewed; });
  if (lost == places_.end()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, "BAD_STATE",
                   absl::StrCat("tensor number ", lost - places_.begin(), " is nowhere in the state tree"));
}

}  // namespace ckpt::storage
