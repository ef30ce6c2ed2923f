#include "storage/state_merge.h"

#include "base/box.h"
#include "base/digest.h"
#include "base/state_node_fixture.h"
#include "base/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/box_tiling.h"

namespace ckpt::storage {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

using Shape = std::vector<std::uint64_t>;
using Nodes = std::vector<v1::StateNode>;

v1::Tensor Floats(const Shape& shape) {
  v1::Tensor tensor;
  tensor.set_dtype(v1::DTYPE_FLOAT32);
  tensor.mutable_shape()->Add(shape.begin(), shape.end());
  return tensor;
}

// The tensor with another box, of a chunk with this content.
v1::Tensor With(v1::Tensor tensor, const Shape& offset, const Shape& shape, const std::string& content = "x") {
  v1::Box& box = *tensor.add_boxes();
  box.mutable_offset()->Add(offset.begin(), offset.end());
  box.mutable_shape()->Add(shape.begin(), shape.end());
  box.set_digests(std::string(Sha256(content).view()));
  box.set_fingerprints(std::string(Xxh3(content).view()));
  return tensor;
}

v1::StateNode TensorNode(std::uint64_t number) {
  v1::StateNode node = Node(v1::NODE_KIND_TENSOR);
  node.set_tensor(number);
  return node;
}

Nodes Dict(const Nodes& children) {
  Nodes out{Node(v1::NODE_KIND_DICT, children.size())};
  out.insert(out.end(), children.begin(), children.end());
  return out;
}

class Merge : public testing::Test {
 protected:
  void Add(const std::vector<v1::Tensor>& tensors, const Nodes& nodes) {
    const absl::Status status = merge_.Add(rank_++, tensors, nodes);
    ASSERT_TRUE(status.ok()) << status;
  }
  // What is wrong with the next rank's part: RANKS_DIFFER and a message.
  std::string WhyNot(const std::vector<v1::Tensor>& tensors, const Nodes& nodes) {
    const absl::Status status = merge_.Add(rank_++, tensors, nodes);
    EXPECT_EQ(ReasonOf(status), "RANKS_DIFFER") << status;
    return std::string(status.message());
  }
  StateMerge::Merged Finish() {
    auto merged = std::move(merge_).Finish();
    EXPECT_TRUE(merged.ok()) << merged.status();
    return merged.ok() ? *std::move(merged) : StateMerge::Merged();
  }

  StateMerge merge_;
  std::uint32_t rank_ = 0;
};

TEST_F(Merge, UnitesMappingsInTheOrderOfTheFirstThatHasAKey) {
  Add({}, Dict({At("a", Value(Int(1))), At("c", Value(Int(3)))}));
  Add({}, Dict({At("b", Value(Int(2))), At("a", Value(Int(1)))}));
  Add({}, {});
  const StateMerge::Merged merged = Finish();
  ASSERT_EQ(merged.nodes.size(), 4U);
  EXPECT_EQ(merged.nodes[0].child_count(), 3U);
  EXPECT_EQ(merged.nodes[1].key().str_value(), "a");
  EXPECT_EQ(merged.nodes[2].key().str_value(), "c");
  EXPECT_EQ(merged.nodes[3].key().str_value(), "b");
  EXPECT_THAT(merged.components, ElementsAre("a", "c", "b"));
}

TEST_F(Merge, KeysOfOtherTypesAreOtherKeys) {
  Add({}, Dict({At(Int(1), Value(Int(1)))}));
  Add({}, Dict({At("1", Value(Int(2)))}));
  EXPECT_EQ(Finish().nodes[0].child_count(), 2U);
}

TEST_F(Merge, UnitesAttributes) {
  v1::StateNode root = Node(v1::NODE_KIND_ORDERED_DICT, 0, 1);
  Add({}, {root, At("_metadata", Value(Int(1)))});
  Add({}, {root, At("other", Value(Int(2)))});
  const StateMerge::Merged merged = Finish();
  EXPECT_EQ(merged.nodes[0].attribute_count(), 2U);
  EXPECT_EQ(merged.nodes[0].child_count(), 0U);
}

TEST_F(Merge, EqualLeavesMustBeEqual) {
  Add({}, Dict({At("epoch", Value(Int(1)))}));
  const std::string why = WhyNot({}, Dict({At("epoch", Value(Int(2)))}));
  EXPECT_THAT(why, HasSubstr("epoch: rank 1 has another value there than rank 0"));
}

TEST_F(Merge, OneIsNotTrue) {
  Add({}, Dict({At("x", Value(Int(1)))}));
  EXPECT_THAT(WhyNot({}, Dict({At("x", Value(Bool(true)))})), HasSubstr("another value"));
}

TEST_F(Merge, ContainersMustBeOfOneType) {
  Add({}, {Node(v1::NODE_KIND_DICT)});
  EXPECT_THAT(WhyNot({}, {Node(v1::NODE_KIND_ORDERED_DICT)}), HasSubstr("another type"));
}

TEST_F(Merge, SequencesMustBeEquallyLong) {
  const Nodes one = {Node(v1::NODE_KIND_LIST, 1), Value(Int(1))};
  const Nodes two = {Node(v1::NODE_KIND_LIST, 2), Value(Int(1)), Value(Int(2))};
  Add({}, two);
  Add({}, two);
  EXPECT_THAT(WhyNot({}, one), HasSubstr("number of members"));
  EXPECT_EQ(Finish().nodes.size(), 3U);
}

TEST_F(Merge, MembersOfASetComeInAnyOrder) {
  Add({}, {Node(v1::NODE_KIND_SET, 2), Value(Int(1)), Value(Int(2))});
  Add({}, {Node(v1::NODE_KIND_SET, 2), Value(Int(2)), Value(Int(1))});
  EXPECT_THAT(WhyNot({}, {Node(v1::NODE_KIND_SET, 2), Value(Int(2)), Value(Int(3))}), HasSubstr("has it"));
}

TEST_F(Merge, BoxesOfAllRanksMakeTheTensor) {
  const Nodes tree = Dict({At("w", TensorNode(0))});
  Add({With(Floats({4000, 2}), {2000, 0}, {2000, 2}, "second")}, tree);
  Add({Floats({4000, 2})}, tree);  // sends nothing of it
  Add({With(Floats({4000, 2}), {0, 0}, {2000, 2}, "first")}, tree);
  const StateMerge::Merged merged = Finish();
  ASSERT_EQ(merged.tensors.size(), 1U);
  const v1::Tensor& tensor = merged.tensors[0];
  EXPECT_EQ(tensor.path(), "w");
  EXPECT_EQ(tensor.component(), "w");
  ASSERT_EQ(tensor.boxes_size(), 2);
  EXPECT_EQ(tensor.boxes(0).digests(), Sha256("first").view());
  EXPECT_EQ(tensor.boxes(1).digests(), Sha256("second").view());
}

TEST_F(Merge, NumbersOfTensorsAreEachRanksOwn) {
  Add({With(Floats({2000}), {0}, {2000}, "a"), With(Floats({3000}), {0}, {3000}, "b")},
      Dict({At("b", TensorNode(1)), At("a", TensorNode(0))}));
  Add({Floats({2000})}, Dict({At("a", TensorNode(0))}));
  const StateMerge::Merged merged = Finish();
  ASSERT_EQ(merged.tensors.size(), 2U);
  EXPECT_EQ(merged.tensors[merged.nodes[1].tensor()].shape(0), 3000U);
  EXPECT_EQ(merged.tensors[merged.nodes[2].tensor()].shape(0), 2000U);
}

TEST_F(Merge, RanksMustDescribeATensorAlike) {
  const Nodes tree = Dict({At("w", TensorNode(0))});
  Add({Floats({4000})}, tree);
  for (const auto& change : std::vector<std::function<void(v1::Tensor&)>>{
           [](auto& t) { t.set_dtype(v1::DTYPE_FLOAT64); }, [](auto& t) { t.set_shape(0, 4001); },
           [](auto& t) { t.set_requires_grad(true); }}) {
    v1::Tensor other = Floats({4000});
    change(other);
    EXPECT_THAT(WhyNot({other}, tree), HasSubstr("w: ranks describe this tensor differently"));
  }
  v1::Tensor elsewhere = Floats({4000});
  elsewhere.set_device("cuda:1");  // each rank's own
  Add({elsewhere}, tree);
}

// Rows of a tensor of 2000 x 2.
v1::Tensor RowsOf(std::uint64_t first, std::uint64_t count) {
  return With(Floats({2000, 2}), {first, 0}, {count, 2}, std::to_string(first));
}
const v1::Tensor kNoRows = Floats({2000, 2});
const Nodes kTied = Dict({At("a", TensorNode(0)), At("b", TensorNode(0))});
const Nodes kApart = Dict({At("a", TensorNode(0)), At("b", TensorNode(1))});

TEST_F(Merge, RanksThatSendOfATensorSayWhetherItIsShared) {
  Add({RowsOf(0, 1000)}, kTied);
  Add({kNoRows}, Dict({At("b", TensorNode(0))}));  // sees one of the places
  Add({kNoRows, kNoRows}, kApart);                 // has nothing of it
  EXPECT_THAT(WhyNot({RowsOf(1000, 1000), RowsOf(1000, 1000)}, kApart), HasSubstr("b: rank 3 has two tensors where"));
}

TEST_F(Merge, WhatOneRankHasApartAnotherMustNotShare) {
  Add({RowsOf(0, 1000), RowsOf(0, 1000)}, kApart);
  Add({kNoRows}, kTied);
  EXPECT_THAT(WhyNot({RowsOf(1000, 1000)}, kTied), HasSubstr("b: rank 2 shares this tensor"));
}

TEST_F(Merge, ATieThatOnlyLaterRanksCanSeeIsKept) {
  Add({kNoRows, kNoRows}, kApart);
  Add({RowsOf(1000, 1000)}, kTied);
  Add({kNoRows}, kTied);
  Add({RowsOf(0, 1000)}, kTied);
  const StateMerge::Merged merged = Finish();
  ASSERT_EQ(merged.tensors.size(), 1U);
  EXPECT_EQ(merged.tensors[0].path(), "a");
  EXPECT_EQ(merged.tensors[0].boxes_size(), 2);
  EXPECT_EQ(merged.nodes[1].tensor(), merged.nodes[2].tensor());
}

TEST_F(Merge, WhatOnlyRanksWithoutBytesTieIsApart) {
  Add({kNoRows}, kTied);
  Add({RowsOf(0, 2000), RowsOf(0, 2000)}, kApart);
  EXPECT_EQ(Finish().tensors.size(), 2U);
}

TEST_F(Merge, TheRoleIsTheOneThatItsSendersSay) {
  v1::Tensor parameter = RowsOf(0, 1000), other = RowsOf(1000, 1000);
  parameter.set_role(v1::ROLE_PARAMETER);
  other.set_role(v1::ROLE_PARAMETER);
  Add({kNoRows}, Dict({At("a", TensorNode(0))}));
  Add({parameter}, Dict({At("a", TensorNode(0))}));
  Add({kNoRows}, Dict({At("a", TensorNode(0))}));
  v1::Tensor buffer = other;
  buffer.set_role(v1::ROLE_BUFFER);
  EXPECT_THAT(WhyNot({buffer}, Dict({At("a", TensorNode(0))})), HasSubstr("differently"));
  Add({other}, Dict({At("a", TensorNode(0))}));
  EXPECT_EQ(Finish().tensors[0].role(), v1::ROLE_PARAMETER);
}

TEST_F(Merge, TensorsWithoutElementsAreTiedLikeOthers) {
  Add({Floats({0, 2})}, kTied);
  Add({Floats({0, 2})}, kTied);
  EXPECT_EQ(Finish().tensors.size(), 1U);
}

TEST(MergeLimit, BoundsWhatLaterRanksAddToo) {
  StateMerge merge(600);
  const Nodes tree = Dict({At("w", TensorNode(0))});
  ASSERT_TRUE(merge.Add(0, {With(Floats({4000, 2}), {0, 0}, {10, 2}, "0")}, tree).ok());
  absl::Status status;
  for (std::uint32_t rank = 1; rank < 20 && status.ok(); ++rank)
    status = merge.Add(rank, {With(Floats({4000, 2}), {10 * rank, 0}, {10, 2}, std::to_string(rank))}, tree);
  EXPECT_EQ(ReasonOf(status), "TOO_LARGE");
}

TEST_F(Merge, ATensorThatNobodySentIsMissed) {
  Add({With(Floats({4000}), {0}, {3000})}, Dict({At("w", TensorNode(0))}));
  const absl::Status status = std::move(merge_).Finish().status();
  EXPECT_EQ(ReasonOf(status), "BOXES_DO_NOT_TILE");
  EXPECT_THAT(status.message(), HasSubstr("tensor w: its boxes have 12000 of its 16000 bytes"));
}

TEST_F(Merge, NothingIsNoState) {
  Add({}, {});
  EXPECT_EQ(ReasonOf(std::move(merge_).Finish().status()), "BAD_STATE");
}

// ---- TileBoxes

TEST(TileBoxes, TakesTheSameBoxTwiceOnlyWithTheSameBytes) {
  v1::Tensor same = With(With(Floats({2000}), {0}, {2000}, "x"), {0}, {2000}, "x");
  ASSERT_TRUE(TileBoxes(same).ok());
  EXPECT_EQ(same.boxes_size(), 1);
  v1::Tensor other = With(With(Floats({2000}), {0}, {2000}, "x"), {0}, {2000}, "y");
  EXPECT_EQ(ReasonOf(TileBoxes(other)), "RANKS_DIFFER");
}

TEST(TileBoxes, RefusesBoxesThatOverlap) {
  // As many elements as the whole, but two of them twice.
  v1::Tensor tensor = With(With(Floats({50, 50}), {0, 0}, {25, 50}), {24, 0}, {25, 50});
  EXPECT_EQ(ReasonOf(TileBoxes(tensor)), "BOXES_DO_NOT_TILE");
}

TEST(TileBoxes, TakesAGrid) {
  v1::Tensor tensor = Floats({40, 60});
  for (const std::uint64_t row : {20U, 0U})
    for (const std::uint64_t column : {0U, 45U, 30U})
      tensor = With(tensor, {row, column}, {20, column == 0 ? 30U : 15U});
  ASSERT_TRUE(TileBoxes(tensor).ok());
  EXPECT_EQ(tensor.boxes(1).offset(1), 30U);
}

TEST(TileBoxes, PutsTheBytesOfASmallTensorTogether) {
  v1::Tensor tensor;
  tensor.set_dtype(v1::DTYPE_INT16);
  tensor.add_shape(3);
  tensor.add_shape(4);
  const auto add = [&](Shape offset, Shape shape, const std::string& bytes) {
    v1::Box& box = *tensor.add_boxes();
    box.mutable_offset()->Add(offset.begin(), offset.end());
    box.mutable_shape()->Add(shape.begin(), shape.end());
    box.set_inline_data(bytes);
  };
  add({0, 3}, {3, 1}, "d.h.l.");
  add({1, 0}, {2, 3}, "e.f.g.i.j.k.");
  add({0, 0}, {1, 3}, "a.b.c.");
  ASSERT_TRUE(TileBoxes(tensor).ok());
  EXPECT_EQ(tensor.inline_data(), "a.b.c.d.e.f.g.h.i.j.k.l.");
  EXPECT_EQ(tensor.boxes_size(), 0);
}

TEST(TileBoxes, TakesSoManyBoxesOnly) {
  v1::Tensor tensor = Floats({1, 8193});
  for (std::uint64_t i = 0; i < 8193; ++i) tensor = With(std::move(tensor), {0, i}, {1, 1});
  EXPECT_EQ(ReasonOf(TileBoxes(tensor)), "BOXES_DO_NOT_TILE");
  tensor = Floats({1, 8192});
  for (std::uint64_t i = 0; i < 8192; ++i) tensor = With(std::move(tensor), {0, i}, {1, 1});
  EXPECT_TRUE(TileBoxes(tensor).ok());
}

TEST(TileBoxes, AScalarIsABoxWithoutDimensions) {
  v1::Tensor tensor = Floats({});
  tensor.add_boxes()->set_inline_data("1234");
  tensor.add_boxes()->set_inline_data("1234");
  ASSERT_TRUE(TileBoxes(tensor).ok());
  EXPECT_EQ(tensor.inline_data(), "1234");
}

TEST(TileBoxes, ATensorWithoutElementsHasNone) {
  v1::Tensor tensor = Floats({0, 5});
  EXPECT_TRUE(TileBoxes(tensor).ok());
}

}  // namespace
}  // namespace ckpt::storage
