#include "ckpt/tensor_digest.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <set>
#include <string>
#include <vector>

#include "base/digest.h"

namespace ckpt {
namespace {

// The header's formula, written out once more.
std::string Number(std::uint64_t value, int bytes) {
  std::string out;
  for (; bytes != 0; --bytes, value >>= 8) out.push_back(static_cast<char>(value));
  return out;
}

std::string Numbers(std::initializer_list<std::uint64_t> values) {
  std::string out;
  for (const std::uint64_t value : values) out += Number(value, 8);
  return out;
}

std::string Hash(const std::string& text) { return std::string(Sha256(text).view()); }

v1::Tensor Floats(std::initializer_list<std::uint64_t> shape, std::initializer_list<std::int64_t> strides = {}) {
  v1::Tensor tensor;
  tensor.set_dtype(v1::DTYPE_FLOAT32);
  for (const std::uint64_t extent : shape) tensor.add_shape(extent);
  for (const std::int64_t stride : strides) tensor.add_strides(stride);
  return tensor;
}

v1::Tensor Inline(std::initializer_list<std::uint64_t> shape, const std::string& bytes,
                  std::initializer_list<std::int64_t> strides = {}) {
  v1::Tensor tensor = Floats(shape, strides);
  tensor.set_inline_data(bytes);
  return tensor;
}

void AddBox(v1::Tensor& tensor, std::initializer_list<std::uint64_t> offset, std::initializer_list<std::uint64_t> shape,
            std::initializer_list<const char*> chunks) {
  v1::Box& box = *tensor.add_boxes();
  for (const std::uint64_t number : offset) box.add_offset(number);
  for (const std::uint64_t number : shape) box.add_shape(number);
  for (const char* chunk : chunks) {
    *box.mutable_digests() += Hash(chunk);
    box.mutable_fingerprints()->append(Xxh3(chunk).view());
  }
}

v1::Tensor View(std::uint64_t of, std::uint64_t offset, std::initializer_list<std::uint64_t> shape,
                std::initializer_list<std::int64_t> strides = {}) {
  v1::Tensor tensor = Floats(shape, strides);
  tensor.set_view_of(of);
  tensor.set_view_offset_bytes(offset);
  return tensor;
}

std::string DigestOf(const v1::Tensor& tensor) { return TensorDigest(std::span(&tensor, 1), 0); }

TEST(TensorDigest, IsOverBoxHeadersAndChunkDigests) {
  v1::Tensor tensor = Floats({3000, 2});
  AddBox(tensor, {0, 0}, {3000, 2}, {"chunk 0", "chunk 1"});
  EXPECT_EQ(DigestOf(tensor),
            Sha256(Number(2, 4) + Numbers({0, 0}) + Numbers({3000, 2}) + Hash("chunk 0") + Hash("chunk 1")).ToHex());
}

TEST(TensorDigest, TakesBoxesInOrder) {
  v1::Tensor tensor = Floats({2, 2048});
  AddBox(tensor, {0, 0}, {1, 2048}, {"a"});
  AddBox(tensor, {1, 0}, {1, 2048}, {"b"});
  EXPECT_EQ(DigestOf(tensor), Sha256(Number(2, 4) + Numbers({0, 0, 1, 2048}) + Hash("a") + Number(2, 4) +
                                     Numbers({1, 0, 1, 2048}) + Hash("b"))
                                  .ToHex());
}

TEST(TensorDigest, AnInlineTensorIsOneBoxOfOneChunk) {
  EXPECT_EQ(DigestOf(Inline({2, 1}, "12345678")),
            Sha256(Number(2, 4) + Numbers({0, 0}) + Numbers({2, 1}) + Hash("12345678")).ToHex());
  EXPECT_EQ(DigestOf(Inline({}, "1234")), Sha256(Number(0, 4) + Hash("1234")).ToHex());
  v1::Tensor boxed = Floats({2, 1});
  AddBox(boxed, {0, 0}, {2, 1}, {"12345678"});
  EXPECT_EQ(DigestOf(boxed), DigestOf(Inline({2, 1}, "12345678"))) << "as if it were cut";
}

TEST(TensorDigest, CountsInMemoryOrder) {
  const std::string bytes(4 * 2 * 3, 'x');
  EXPECT_EQ(DigestOf(Inline({2, 3}, bytes, {1, 2})),
            Sha256(Number(2, 4) + Numbers({0, 0}) + Numbers({3, 2}) + Hash(bytes)).ToHex());
}

TEST(TensorDigest, OfNoElementsIsOfNoBox) {
  EXPECT_EQ(DigestOf(Floats({0, 5})), Sha256("").ToHex());
  EXPECT_EQ(DigestOf(Floats({7, 0})), DigestOf(Floats({0})));
}

TEST(TensorDigest, AViewOfTheWholeHasItsDigest) {
  const std::vector<v1::Tensor> tensors = {Inline({4}, std::string(16, 'x')), View(0, 0, {4})};
  EXPECT_EQ(TensorDigest(tensors, 1), TensorDigest(tensors, 0));
}

TEST(TensorDigest, AnyOtherViewSaysWhatItShows) {
  const std::vector<v1::Tensor> tensors = {Inline({4}, std::string(16, 'x')), View(0, 4, {2}),
                                           View(0, 0, {2, 2}, {1, 2})};
  const std::string shown = Hash(Number(1, 4) + Numbers({0}) + Numbers({4}) + Hash(std::string(16, 'x')));
  EXPECT_EQ(TensorDigest(tensors, 1), Sha256(shown + Numbers({4}) + Number(1, 4) + Numbers({2})).ToHex());
  EXPECT_EQ(TensorDigest(tensors, 2),
            Sha256(shown + Numbers({0}) + Number(2, 4) + Numbers({2, 2}) + Numbers({1, 2})).ToHex());
}

TEST(TensorDigest, DiffersWhereTheTensorsDo) {
  const std::string bytes(16, 'x');
  std::vector<v1::Tensor> tensors = {Inline({4}, bytes),    Inline({4}, std::string(16, 'y')),
                                     Inline({2, 2}, bytes), Inline({4, 1}, bytes),
                                     View(0, 0, {3}),       View(0, 4, {3}),
                                     View(0, 0, {2, 2}),    View(1, 0, {3}),
                                     View(0, 0, {2}, {2})};
  std::set<std::string> digests;
  for (std::uint64_t i = 0; i < tensors.size(); ++i) EXPECT_TRUE(digests.insert(TensorDigest(tensors, i)).second) << i;
}

TEST(TensorDigest, NamesPathsAndRolesDoNotCount) {
  v1::Tensor named = Inline({4}, std::string(16, 'x'));
  named.set_path("model.weight");
  named.set_role(v1::ROLE_PARAMETER);
  named.set_requires_grad(true);
  EXPECT_EQ(DigestOf(named), DigestOf(Inline({4}, std::string(16, 'x'))));
}

}  // namespace
}  // namespace ckpt
