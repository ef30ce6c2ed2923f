#include "client/manifest.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/box.h"
#include "base/data_type.h"
#include "base/status.h"
#include "base/utf8.h"

namespace ckpt::client {
namespace {

// The largest chunk that a message has room for.
constexpr std::uint32_t kMaxChunkSize = std::uint32_t{4} << 20;

// `what` may have texts of the server in it, which can be anything.
absl::Status Malformed(absl::string_view what) {
  return MakeError(absl::StatusCode::kDataLoss, "MALFORMED_MANIFEST",
                   absl::StrCat("the server's description of the checkpoint does not make sense: ",
                                PrintableUtf8({what.data(), what.size()})));
}

}  // namespace

std::string Manifest::Name() const {
  return absl::StrCat("run ", PrintableUtf8(checkpoint.run()), " epoch ", checkpoint.epoch(), " version ",
                      checkpoint.version());
}

absl::Status ManifestReader::Take(v1::RestoreResponse message) {
  if (complete_) return Malformed("it goes on after its end");
  if (manifest_.layout.has_value() == message.has_header()) return Malformed("its header is not what comes first");
  switch (message.message_case()) {
    case v1::RestoreResponse::kHeader: return TakeHeader(*message.mutable_header());
    case v1::RestoreResponse::kState: return TakeNodes(*message.mutable_state());
    case v1::RestoreResponse::kTensors: return TakeTensors(*message.mutable_tensors());
    case v1::RestoreResponse::kStart: complete_ = true; return CheckWhole();
    default: return absl::OkStatus();  // of a newer server
  }
}

absl::Status ManifestReader::TakeHeader(v1::RestoreHeader& header) {
  if (header.chunk_size() == 0 || header.chunk_size() > kMaxChunkSize)
    return Malformed(absl::StrCat("chunks of ", header.chunk_size(), " bytes"));
  manifest_.layout.emplace(header.chunk_size());
  manifest_.checkpoint = std::move(*header.mutable_checkpoint());
  return absl::OkStatus();
}

absl::Status ManifestReader::TakeNodes(v1::StatePart& part) {
  const std::uint64_t tensor_count = manifest_.checkpoint.tensor_count();
  for (v1::StateNode& node : *part.mutable_nodes()) {
    if (const absl::Status status = walk_.Next(node); !status.ok()) return Malformed(status.message());
    if (HasTensor(node.kind()) && node.tensor() >= tensor_count)
      return Malformed(absl::StrCat(walk_.path(), " is tensor ", node.tensor(), " of ", tensor_count));
    manifest_.nodes.push_back(std::move(node));
  }
  return absl::OkStatus();
}

absl::Status ManifestReader::TakeTensors(v1::TensorPart& part) {
  const auto count = static_cast<std::size_t>(part.tensors_size());
  if (part.first() != manifest_.tensors.size()) return Malformed("a part of its tensors is missing");
  for (std::size_t i = 0; i < count; ++i) {
    v1::Tensor& tensor = *part.mutable_tensors(static_cast<int>(i));
    const auto size_bytes = SizeBytes(tensor);
    if (!size_bytes.ok()) return Malformed(size_bytes.status().message());
    CKPT_RETURN_IF_ERROR(CheckTensor(tensor, *size_bytes));
    std::vector<std::uint64_t> boxes;
    for (const v1::Box& box : tensor.boxes()) boxes.push_back(BoxBytes(tensor, box));
    manifest_.layout->Add(boxes);
    manifest_.size_bytes.push_back(*size_bytes);
    manifest_.tensors.push_back(std::move(tensor));
  }
  return absl::OkStatus();
}

absl::Status ManifestReader::CheckTensor(const v1::Tensor& tensor, std::uint64_t size_bytes) const {
  const auto bad = [&](absl::string_view what) {
    return Malformed(absl::StrCat("tensor ", tensor.path(), ": ", what));
  };
  if (tensor.has_view_of()) {
    if (tensor.boxes_size() != 0 || !tensor.inline_data().empty()) return bad("a view has bytes of its own");
    return absl::OkStatus();  // what it shows may come later: CheckWhole
  }
  if (!DenseOrder(tensor).has_value()) return bad("its strides are no dense layout");
  if (tensor.boxes_size() == 0) {
    if (tensor.inline_data().size() != size_bytes) return bad("its inline bytes are not as many as its shape says");
    return absl::OkStatus();
  }
  if (!tensor.inline_data().empty()) return bad("it has inline bytes and boxes");
  for (int i = 0; i < tensor.boxes_size(); ++i) {
    const v1::Box& box = tensor.boxes(i);
    if (i != 0 && !IsBefore(tensor.boxes(i - 1), box)) return bad("its boxes are not in order");
    if (const absl::Status status = CheckBox(tensor, box); !status.ok()) return Malformed(status.message());
    const std::uint64_t chunks = ChunkLayout::Count(BoxBytes(tensor, box), manifest_.layout->chunk_size());
    if (box.digests().size() / Digest::kSize != chunks || box.digests().size() % Digest::kSize != 0 ||
        box.fingerprints().size() != chunks * Fingerprint::kSize)
      return bad("its chunks are not as many as its shape says");
  }
  if (const absl::Status status = CheckTiling(tensor); !status.ok()) return Malformed(status.message());
  return absl::OkStatus();
}

absl::Status ManifestReader::CheckWhole() const {
  const Manifest& m = manifest_;
  if (!walk_.Complete()) return Malformed("the state tree is incomplete");
  if (m.tensors.size() != m.checkpoint.tensor_count())
    return Malformed(absl::StrCat(m.tensors.size(), " tensors of ", m.checkpoint.tensor_count()));
  for (std::size_t i = 0; i < m.tensors.size(); ++i) {
    const v1::Tensor& view = m.tensors[i];
    if (!view.has_view_of()) continue;
    if (view.view_of() >= m.tensors.size() || m.tensors[view.view_of()].has_view_of())
      return Malformed(absl::StrCat("tensor ", view.path(), " is a view of none that has bytes"));
    const auto extent = ViewExtentBytes(view);
    const std::uint64_t shown = m.size_bytes[view.view_of()];
    if (!extent.ok() || view.view_offset_bytes() > shown || *extent > shown - view.view_offset_bytes())
      return Malformed(absl::StrCat("tensor ", view.path(), " reaches beyond the bytes that it is a view of"));
  }
  return absl::OkStatus();
}

}  // namespace ckpt::client
