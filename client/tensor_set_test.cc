#include "client/tensor_set.h"

#include "base/status.h"
#include "gtest/gtest.h"

namespace ckpt::client {
namespace {

const std::array<float, 24> kValues{};

Tensor Floats(std::vector<std::uint64_t> shape, std::vector<std::int64_t> strides = {}) {
  Tensor tensor;
  tensor.meta.set_dtype(v1::DTYPE_FLOAT32);
  for (const std::uint64_t extent : shape) tensor.meta.add_shape(extent);
  for (const std::int64_t stride : strides) tensor.meta.add_strides(stride);
  tensor.data = kValues.data();
  return tensor;
}

Tensor View(std::uint64_t of, std::uint64_t offset, std::vector<std::uint64_t> shape,
            std::vector<std::int64_t> strides = {}) {
  Tensor tensor = Floats(std::move(shape), std::move(strides));
  tensor.data = nullptr;
  tensor.meta.set_view_of(of);
  tensor.meta.set_view_offset_bytes(offset);
  return tensor;
}

TEST(TensorSet, TakesDenseTensorsAndViews) {
  TensorSet set;
  EXPECT_EQ(*set.Add(Floats({2, 3, 4})), 0U);
  EXPECT_EQ(*set.Add(Floats({2, 3, 4}, {12, 1, 3})), 1U);  // channels last
  EXPECT_EQ(*set.Add(View(0, 8, {2, 2}, {12, 5})), 2U);
  EXPECT_EQ(*set.Add(View(0, 96, {0})), 3U);
  EXPECT_TRUE(set.Add(Floats({})).ok());
  Tensor empty = Floats({5, 0});
  empty.data = nullptr;
  EXPECT_TRUE(set.Add(empty).ok());
  EXPECT_EQ(set.total_bytes(), 96U + 96U + 4U);
  EXPECT_EQ(set.pieces(1)[0].size(), 96U);
  EXPECT_TRUE(set.pieces(2).empty());
}

TEST(TensorSet, RefusesWhatDoesNotFitTogether) {
  TensorSet set;
  ASSERT_TRUE(set.Add(Floats({24})).ok());
  ASSERT_TRUE(set.Add(View(0, 0, {24})).ok());
  const auto reason = [&](const Tensor& tensor) { return ReasonOf(set.Add(tensor).status()); };
  Tensor no_type = Floats({1});
  no_type.meta.clear_dtype();
  EXPECT_EQ(reason(no_type), "UNKNOWN_DTYPE");
  EXPECT_EQ(reason(Floats({1ULL << 32, 1ULL << 32})), "SHAPE_TOO_LARGE");
  EXPECT_EQ(reason(Floats({2, 2}, {4, 1})), "BAD_TENSOR");  // not dense
  EXPECT_EQ(reason(Floats({2, 2}, {1})), "BAD_TENSOR");     // too few strides
  Tensor no_data = Floats({1});
  no_data.data = nullptr;
  EXPECT_EQ(reason(no_data), "BAD_TENSOR");
  Tensor has_inline = Floats({1});
  has_inline.meta.set_inline_data("abcd");
  EXPECT_EQ(reason(has_inline), "BAD_TENSOR");
  Tensor offset = Floats({1});
  offset.meta.set_view_offset_bytes(4);
  EXPECT_EQ(reason(offset), "BAD_TENSOR");
  EXPECT_EQ(reason(View(2, 0, {1})), "BAD_TENSOR");   // of none
  EXPECT_EQ(reason(View(1, 0, {1})), "BAD_TENSOR");   // of a view
  EXPECT_EQ(reason(View(0, 4, {24})), "BAD_TENSOR");  // beyond the end
  EXPECT_EQ(reason(View(0, UINT64_MAX, {1})), "BAD_TENSOR");
  EXPECT_EQ(reason(View(0, 0, {2}, {24})), "BAD_TENSOR");
  EXPECT_EQ(reason(View(0, 0, {2}, {-1})), "BAD_TENSOR");
  EXPECT_EQ(reason(View(0, 0, {3}, {INT64_MAX})), "BAD_TENSOR");
  EXPECT_EQ(reason(View(0, 0, {2, 2}, {1})), "BAD_TENSOR");
  Tensor own_bytes = View(0, 0, {1});
  own_bytes.data = kValues.data();
  EXPECT_EQ(reason(own_bytes), "BAD_TENSOR");
  EXPECT_EQ(set.count(), 2U);
}

TEST(TensorSet, EveryTensorHasItsPlace) {
  StateBuilder builder;
  builder.Dict().Key("a").Tensor(Floats({1})).Key("b").Tensor(Floats({1})).End();
  auto state = *std::move(builder).Build();
  TensorSet set;
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(set.Add(Floats({1})).ok());
  EXPECT_TRUE(set.Place(state.nodes).ok());
  EXPECT_EQ(set.meta(1).path(), "b");
  EXPECT_EQ(set.meta(1).component(), "b");

  ASSERT_TRUE(set.Add(Floats({24})).ok());
  EXPECT_EQ(ReasonOf(set.Place(state.nodes)), "BAD_STATE");  // the third is nowhere
  ASSERT_TRUE(set.Add(View(2, 0, {1})).ok());
  state.nodes[2].set_tensor(3);
  EXPECT_EQ(ReasonOf(set.Place(state.nodes)), "BAD_STATE");  // the second is nowhere now
  state.nodes[2].set_tensor(4);
  EXPECT_EQ(ReasonOf(set.Place(state.nodes)), "BAD_STATE");  // there is none
  EXPECT_EQ(ReasonOf(set.Place(std::span(state.nodes).first(2))), "BAD_STATE");
}

Tensor Boxes(std::vector<std::uint64_t> shape, std::vector<TensorBox> boxes) {
  Tensor tensor = Floats(std::move(shape));
  tensor.data = nullptr;
  tensor.boxes = std::move(boxes);
  return tensor;
}

TEST(TensorSet, APartTakesBoxesOfATensor) {
  TensorSet set(TensorSet::Of::kPart);
  const TensorBox empty{{4, 0}, {0, 6}, nullptr};  // this rank has no rows
  ASSERT_TRUE(set.Add(Boxes({4, 6}, {{{0, 0}, {2, 3}, kValues.data()}, empty, {{2, 3}, {1, 3}, &kValues[9]}})).ok());
  ASSERT_TRUE(set.Add(Boxes({4, 6}, {})).ok());
  ASSERT_TRUE(set.Add(Floats({2, 3})).ok());
  EXPECT_EQ(set.meta(0).boxes_size(), 2);
  EXPECT_EQ(set.whole_bytes(0), 96U);
  EXPECT_EQ(set.pieces(0)[1].size(), 12U);
  EXPECT_EQ(set.pieces(0)[1].data(), reinterpret_cast<const std::byte*>(&kValues[9]));
  EXPECT_TRUE(set.pieces(1).empty());
  EXPECT_EQ(set.meta(2).boxes_size(), 1) << "the whole is a box too: others have none of it";
  EXPECT_EQ(set.total_bytes(), 24U + 12U + 24U);
}

TEST(TensorSet, APartRefusesWhatItCannotHave) {
  TensorSet part(TensorSet::Of::kPart);
  ASSERT_TRUE(part.Add(Floats({24})).ok());
  EXPECT_FALSE(part.Add(View(0, 0, {2})).ok());
  EXPECT_FALSE(part.Add(Boxes({4, 6}, {{{3, 0}, {2, 6}, kValues.data()}})).ok());
  EXPECT_FALSE(part.Add(Boxes({4, 6}, {{{0}, {4}, kValues.data()}})).ok());
  EXPECT_FALSE(part.Add(Boxes({4, 6}, {{{0, 0}, {4, 6}, nullptr}})).ok());
  Tensor both = Boxes({24}, {{{0}, {24}, kValues.data()}});
  both.data = kValues.data();
  EXPECT_FALSE(part.Add(both).ok());
  Tensor strided = Boxes({4, 6}, {});
  strided.meta.add_strides(1);
  strided.meta.add_strides(4);
  EXPECT_FALSE(part.Add(strided).ok());
  EXPECT_FALSE(TensorSet().Add(Boxes({24}, {})).ok()) << "a whole state has whole tensors";
}

TEST(TensorSet, APartMayBeEmpty) {
  EXPECT_TRUE(TensorSet(TensorSet::Of::kPart).Place({}).ok());
  EXPECT_FALSE(TensorSet().Place({}).ok());
}

}  // namespace
}  // namespace ckpt::client
