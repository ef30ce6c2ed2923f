#include "ckpt/tensor_digest.h"

#include <algorithm>

#include "base/data_type.h"
#include "base/digest.h"

namespace ckpt {
namespace {

template <typename Number>
void AppendNumber(std::string& out, Number value) {
  for (std::size_t i = 0; i < sizeof value; ++i)
    out.push_back(static_cast<char>(static_cast<std::uint64_t>(value) >> 8 * i & 0xff));
}

template <typename List>
void AppendAll(std::string& out, const List& numbers) {
  for (const auto number : numbers) AppendNumber(out, number);
}

Digest DigestOfBytes(const v1::Tensor& tensor) {
  std::string text;
  for (const v1::Box& box : tensor.boxes()) {
    AppendNumber(text, static_cast<std::uint32_t>(box.shape_size()));
    AppendAll(text, box.offset());
    AppendAll(text, box.shape());
    text += box.digests();
  }
  if (!tensor.inline_data().empty()) {
    AppendNumber(text, static_cast<std::uint32_t>(tensor.shape_size()));
    for (int i = 0; i < tensor.shape_size(); ++i) AppendNumber(text, std::uint64_t{0});
    if (const auto order = DenseOrder(tensor); order.has_value())
      for (const int dim : *order) AppendNumber(text, tensor.shape(dim));
    text += Sha256(tensor.inline_data()).view();
  }
  return Sha256(text);
}

}  // namespace

std::string TensorDigest(std::span<const v1::Tensor> tensors, std::uint64_t number) {
  const v1::Tensor& tensor = tensors[number];
  if (!tensor.has_view_of() || tensor.view_of() >= tensors.size()) return DigestOfBytes(tensor).ToHex();
  const v1::Tensor& shown = tensors[tensor.view_of()];
  const Digest digest = DigestOfBytes(shown);
  const auto same = [](const auto& a, const auto& b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); };
  if (tensor.view_offset_bytes() == 0 && tensor.dtype() == shown.dtype() && same(tensor.shape(), shown.shape()) &&
      same(tensor.strides(), shown.strides()))
    return digest.ToHex();
  std::string text(digest.view());
  AppendNumber(text, tensor.view_offset_bytes());
  AppendNumber(text, static_cast<std::uint32_t>(tensor.shape_size()));
  AppendAll(text, tensor.shape());
  AppendAll(text, tensor.strides());
  return Sha256(text).ToHex();
}

}  // namespace ckpt
