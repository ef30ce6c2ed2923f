#include "storage/manifest_builder.h"

#include <utility>
#include <vector>

namespace ckpt::storage {
namespace {

// Small enough that a changed number among the nodes makes little new, large enough that parts are few.
constexpr std::size_t kNodePartBytes = 32U << 10;
constexpr std::size_t kTensorPartBytes = 128U << 10;

}  // namespace

ManifestBuilder::ManifestBuilder(std::uint32_t chunk_size, Sink sink) : sink_(std::move(sink)) {
  root_.set_format(1);
  root_.set_chunk_size(chunk_size);
}

void ManifestBuilder::AddNode(const v1::StateNode& node) {
  nodes_.size_bytes += node.ByteSizeLong();
  *nodes_.part.add_nodes() = node;
  root_.set_node_count(root_.node_count() + 1);
  if (nodes_.size_bytes >= kNodePartBytes) Cut(nodes_, false);
}

void ManifestBuilder::AddTensor(const v1::Tensor& tensor, std::uint64_t logical_bytes) {
  tensors_.size_bytes += tensor.ByteSizeLong();
  *tensors_.part.add_tensors() = tensor;
  root_.set_tensor_count(root_.tensor_count() + 1);
  root_.set_logical_bytes(root_.logical_bytes() + logical_bytes);
  if (tensors_.size_bytes >= kTensorPartBytes) Cut(tensors_, true);
}

void ManifestBuilder::Cut(Open& open, bool tensors) {
  if (open.size_bytes == 0) return;
  std::string record = open.part.SerializeAsString();
  const Digest digest = Sha256(record);
  v1::ManifestPartRef& ref = *root_.add_parts();
  ref.set_digest(std::string(digest.view()));
  ref.set_size_bytes(record.size());
  ref.set_first(open.first);
  ref.set_tensors(tensors);
  sink_(digest, std::move(record));
  open = {};
  open.first = tensors ? root_.tensor_count() : root_.node_count();
}

v1::ManifestRoot ManifestBuilder::Finish(const std::vector<std::string>& components) {
  Cut(nodes_, false);
  Cut(tensors_, true);
  for (const std::string& component : components) *root_.add_components() = component;
  return std::move(root_);
}

}  // namespace ckpt::storage
