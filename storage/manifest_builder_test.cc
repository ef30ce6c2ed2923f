#include "storage/manifest_builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace ckpt::storage {
namespace {

using testing::ElementsAre;

struct Manifest {
  v1::ManifestRoot root;
  std::map<Digest, std::string> records;
};

v1::StateNode NodeOf(std::size_t i) {
  v1::StateNode node;
  node.set_kind(v1::NODE_KIND_TENSOR);
  node.mutable_key()->set_str_value(absl::StrCat("layer", 100'000 + i));
  node.set_tensor(i);
  return node;
}

v1::Tensor TensorOf(std::size_t i) {
  v1::Tensor tensor;
  tensor.set_path(absl::StrCat("layer", 100'000 + i));
  tensor.set_dtype(v1::DTYPE_UINT8);
  tensor.add_shape(100);
  tensor.set_inline_data(std::string(100, 'x'));
  return tensor;
}

Manifest Build(const std::vector<v1::StateNode>& nodes, const std::vector<v1::Tensor>& tensors) {
  Manifest out;
  ManifestBuilder builder(16384, [&](const Digest& digest, std::string record) {
    EXPECT_EQ(digest, Sha256(record));
    out.records[digest] = std::move(record);
  });
  for (const v1::Tensor& tensor : tensors) builder.AddTensor(tensor, 100);
  for (const v1::StateNode& node : nodes) builder.AddNode(node);
  out.root = builder.Finish({"model", "optimizer"});
  return out;
}

std::vector<v1::StateNode> Nodes(std::size_t count) {
  std::vector<v1::StateNode> out;
  for (std::size_t i = 0; i < count; ++i) out.push_back(NodeOf(i));
  return out;
}

std::vector<v1::Tensor> ManyTensors(std::size_t count) {
  std::vector<v1::Tensor> out;
  for (std::size_t i = 0; i < count; ++i) out.push_back(TensorOf(i));
  return out;
}

std::set<std::string> PartsOf(const Manifest& manifest) {
  std::set<std::string> out;
  for (const v1::ManifestPartRef& part : manifest.root.parts()) out.insert(part.digest());
  return out;
}

// How many of the first's parts the second does not have.
std::size_t Changed(const Manifest& a, const Manifest& b) {
  const std::set<std::string> kept = PartsOf(b);
  std::size_t count = 0;
  for (const std::string& digest : PartsOf(a)) count += !kept.contains(digest);
  return count;
}

TEST(ManifestBuilder, PartsInOrderAreAllThatCame) {
  const Manifest manifest = Build(Nodes(5000), ManyTensors(3000));
  std::vector<v1::StateNode> nodes;
  std::vector<v1::Tensor> tensors;
  for (const v1::ManifestPartRef& ref : manifest.root.parts()) {
    const std::string& record = manifest.records.at(*Digest::From(ref.digest()));
    EXPECT_EQ(ref.size_bytes(), record.size());
    EXPECT_EQ(ref.first(), ref.tensors() ? tensors.size() : nodes.size());
    v1::ManifestPart part;
    ASSERT_TRUE(part.ParseFromString(record));
    EXPECT_EQ(ref.tensors() ? part.nodes_size() : part.tensors_size(), 0) << "never both";
    nodes.insert(nodes.end(), part.nodes().begin(), part.nodes().end());
    tensors.insert(tensors.end(), part.tensors().begin(), part.tensors().end());
  }
  ASSERT_EQ(nodes.size(), 5000U);
  ASSERT_EQ(tensors.size(), 3000U);
  for (std::size_t i = 0; i < nodes.size(); ++i) ASSERT_EQ(nodes[i].SerializeAsString(), NodeOf(i).SerializeAsString());
  for (std::size_t i = 0; i < tensors.size(); ++i)
    ASSERT_EQ(tensors[i].SerializeAsString(), TensorOf(i).SerializeAsString());
}

TEST(ManifestBuilder, TheRootSumsUp) {
  const v1::ManifestRoot root = Build(Nodes(10), ManyTensors(7)).root;
  EXPECT_EQ(root.format(), 1U);
  EXPECT_EQ(root.chunk_size(), 16384U);
  EXPECT_EQ(root.node_count(), 10U);
  EXPECT_EQ(root.tensor_count(), 7U);
  EXPECT_EQ(root.logical_bytes(), 700U);
  EXPECT_THAT(root.components(), ElementsAre("model", "optimizer"));
  EXPECT_EQ(root.parts_size(), 2);
}

TEST(ManifestBuilder, NothingHasNoParts) {
  const Manifest manifest = Build({}, {});
  EXPECT_EQ(manifest.root.parts_size(), 0);
  EXPECT_TRUE(manifest.records.empty());
}

TEST(ManifestBuilder, PartsAreCutWhenTheyAreLargeEnough) {
  const Manifest manifest = Build(Nodes(5000), ManyTensors(3000));
  int parts[2] = {0, 0};
  for (const v1::ManifestPartRef& ref : manifest.root.parts()) {
    const std::size_t target = ref.tensors() ? 128U << 10 : 32U << 10;
    EXPECT_LT(ref.size_bytes(), target + target / 4);
    ++parts[ref.tensors()];
  }
  EXPECT_GE(parts[false], 4);
  EXPECT_GE(parts[true], 3);
}

TEST(ManifestBuilder, EqualStatesHaveEqualManifests) {
  const Manifest a = Build(Nodes(5000), ManyTensors(3000));
  const Manifest b = Build(Nodes(5000), ManyTensors(3000));
  EXPECT_EQ(a.root.SerializeAsString(), b.root.SerializeAsString());
  EXPECT_EQ(a.records, b.records);
}

TEST(ManifestBuilder, WhereNodesAndTensorsMixDoesNotMoveTheCuts) {
  std::set<std::string> mixed;
  ManifestBuilder builder(16384, [&](const Digest& digest, const std::string&) { mixed.emplace(digest.view()); });
  for (std::size_t i = 0; i < 3000; ++i) {
    builder.AddNode(NodeOf(i));
    builder.AddTensor(TensorOf(i), 100);
  }
  builder.Finish({});
  EXPECT_EQ(mixed, PartsOf(Build(Nodes(3000), ManyTensors(3000))));
}

TEST(ManifestBuilder, OneChangedNodeChangesOnePart) {
  const std::vector<v1::Tensor> tensors = ManyTensors(3000);
  const std::vector<v1::StateNode> nodes = Nodes(5000);
  const Manifest before = Build(nodes, tensors);
  for (const std::size_t i : {0U, 2500U, 4999U}) {
    std::vector<v1::StateNode> other = nodes;
    other[i].mutable_key()->set_str_value(absl::StrCat("LAYER", 100'000 + i));
    EXPECT_EQ(Changed(before, Build(other, tensors)), 1U) << i;
  }
}

TEST(ManifestBuilder, OneChangedTensorChangesOnePart) {
  std::vector<v1::Tensor> tensors = ManyTensors(3000);
  const Manifest before = Build(Nodes(100), tensors);
  tensors[1500].set_inline_data(std::string(100, 'y'));
  EXPECT_EQ(Changed(before, Build(Nodes(100), tensors)), 1U);
}

TEST(ManifestBuilder, WhatIsAppendedLeavesTheFirstPartsAsTheyAre) {
  EXPECT_LE(Changed(Build(Nodes(5000), {}), Build(Nodes(6000), {})), 1U);
}

}  // namespace
}  // namespace ckpt::storage
