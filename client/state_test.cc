#include "ckpt/state.h"

#include "base/state_walk.h"
#include "ckpt/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ckpt {
namespace {

using ::testing::ElementsAre;

Tensor Number(const double& value) {
  Tensor tensor;
  tensor.meta.set_dtype(v1::DTYPE_FLOAT64);
  tensor.data = &value;
  return tensor;
}

v1::StateNode Leaf() {
  v1::StateNode node;
  node.set_kind(v1::NODE_KIND_SCALAR);
  node.mutable_value()->set_int_value(1);
  return node;
}

std::vector<std::string> PathsOf(std::span<const v1::StateNode> nodes) {
  std::vector<std::string> paths;
  StateWalk walk;
  for (const v1::StateNode& node : nodes) {
    EXPECT_TRUE(walk.Next(node).ok());
    paths.push_back(walk.path());
  }
  EXPECT_TRUE(walk.Complete());
  return paths;
}

// What is chosen, as paths.
std::vector<std::string> Select(const State& state, std::vector<std::string> components,
                                std::vector<std::string> include) {
  const auto nodes = SelectNodes(state.nodes, components, include);
  EXPECT_TRUE(nodes.ok()) << nodes.status();
  return nodes.ok() ? PathsOf(*nodes) : std::vector<std::string>();
}

std::string WhyNot(const State& state, std::vector<std::string> components, std::vector<std::string> include) {
  return ReasonOf(SelectNodes(state.nodes, components, include).status());
}

State Model() {
  StateBuilder b;
  b.Dict().Key("model").OrderedDict();
  b.Key("fc.weight").Leaf(Leaf()).Key("fc.bias").Leaf(Leaf());
  b.Attributes().Key("_metadata").OrderedDict().Key("fc").Dict().Key("version").Int(1).End();
  b.Attributes().Key("note").Str("below an attribute").End().End();
  b.Key("optimizer").Dict().Key("state").Dict().Key(0).Leaf(Leaf()).End();
  b.Key("param_groups").List().Dict().Key("lr").Float(0.1).Key("params").List().Int(0).Int(1).End().End().End().End();
  b.Key("args").Open(v1::NODE_KIND_NAMESPACE).Attributes().Key("lr").Float(0.1).End();
  b.Key("empty").Dict().End();
  b.End();
  auto state = std::move(b).Build();
  EXPECT_TRUE(state.ok()) << state.status();
  return *std::move(state);
}

TEST(StateBuilder, FillsInPathsAndComponents) {
  const double value = 1;
  StateBuilder b;
  v1::StateNode twice;
  twice.set_kind(v1::NODE_KIND_PARAMETER);
  twice.set_tensor(b.AddTensor(Number(value)));
  b.Dict().Key("model").OrderedDict().Key("a").Leaf(twice).Key("b").Leaf(twice).End();
  b.Key("list").List().Tensor(Number(value)).Tensor(Number(value)).End().End();
  const auto state = std::move(b).Build();
  ASSERT_TRUE(state.ok()) << state.status();
  ASSERT_EQ(state->tensors.size(), 3U);
  EXPECT_EQ(state->tensors[0].meta.path(), "model.a");
  EXPECT_EQ(state->tensors[0].meta.component(), "model");
  EXPECT_EQ(state->tensors[2].meta.path(), "list.1");
  EXPECT_EQ(state->tensors[2].meta.component(), "list");
}

TEST(StateBuilder, RemembersTheFirstMistake) {
  const auto reason = [](StateBuilder& b) { return ReasonOf(std::move(b).Build().status()); };
  StateBuilder none;
  EXPECT_EQ(reason(none), "BAD_STATE");
  StateBuilder open;
  EXPECT_EQ(reason(open.Dict()), "BAD_STATE");
  StateBuilder end;
  EXPECT_EQ(reason(end.Dict().End().End()), "BAD_STATE");
  StateBuilder no_key;
  EXPECT_EQ(reason(no_key.Dict().Int(1).End()), "BAD_STATE");
  StateBuilder two_keys;
  EXPECT_EQ(reason(two_keys.Dict().Key("a").Key("b").Int(1).End()), "BAD_STATE");
  StateBuilder same_key;
  EXPECT_EQ(reason(same_key.Dict().Key("a").Int(1).Key("a").Int(1).End()), "BAD_STATE");
  StateBuilder dangling_key;
  EXPECT_EQ(reason(dangling_key.Dict().Key("a").End()), "BAD_STATE");
  StateBuilder list_key;
  EXPECT_EQ(reason(list_key.List().Key("a").Int(1).End()), "BAD_STATE");
  StateBuilder late_child;
  EXPECT_EQ(reason(late_child.Attributes()), "BAD_STATE");
  StateBuilder no_tensor;
  v1::StateNode node;
  node.set_kind(v1::NODE_KIND_TENSOR);
  node.set_tensor(3);
  EXPECT_EQ(reason(no_tensor.Leaf(node)), "BAD_STATE");
}

TEST(SelectNodes, TakesAllWithoutAChoice) {
  const State state = Model();
  const auto nodes = SelectNodes(state.nodes, {}, {});
  ASSERT_TRUE(nodes.ok());
  ASSERT_EQ(nodes->size(), state.nodes.size());
  for (std::size_t i = 0; i < nodes->size(); ++i)
    EXPECT_EQ((*nodes)[i].SerializeAsString(), state.nodes[i].SerializeAsString());
}

TEST(SelectNodes, TakesComponentsWhole) {
  EXPECT_THAT(Select(Model(), {"model"}, {}),
              ElementsAre("", "model", "model.fc.weight", "model.fc.bias", "model.@_metadata", "model.@_metadata.fc",
                          "model.@_metadata.fc.version", "model.@_metadata.@note"));
  EXPECT_THAT(Select(Model(), {"args", "empty"}, {}), ElementsAre("", "args", "args.@lr", "empty"));
}

TEST(SelectNodes, GlobsTakeLeavesWithWhatIsAboveThem) {
  EXPECT_THAT(Select(Model(), {}, {"*weight"}),
              ElementsAre("", "model", "model.fc.weight", "model.@_metadata", "model.@_metadata.fc",
                          "model.@_metadata.fc.version", "model.@_metadata.@note"));
  EXPECT_THAT(Select(Model(), {"optimizer"}, {"*lr", "*params.?"}),
              ElementsAre("", "optimizer", "optimizer.param_groups", "optimizer.param_groups.0",
                          "optimizer.param_groups.0.lr", "optimizer.param_groups.0.params",
                          "optimizer.param_groups.0.params.0", "optimizer.param_groups.0.params.1"));
}

TEST(SelectNodes, AttributesAreNotChosenByThemselves) {
  EXPECT_EQ(WhyNot(Model(), {}, {"*version", "*@lr"}), "NOTHING_MATCHES");
  EXPECT_THAT(Select(Model(), {}, {"args"}), ElementsAre("", "args", "args.@lr"));
}

TEST(SelectNodes, AnEmptyContainerIsALeaf) { EXPECT_THAT(Select(Model(), {}, {"emp*"}), ElementsAre("", "empty")); }

TEST(SelectNodes, RefusesToShiftMembers) {
  EXPECT_EQ(WhyNot(Model(), {}, {"*params.1"}), "CANNOT_SELECT");
  StateBuilder b;
  b.List().Int(1).Int(2).End();
  const auto list = std::move(b).Build();
  ASSERT_TRUE(list.ok());
  EXPECT_EQ(WhyNot(*list, {}, {"1"}), "CANNOT_SELECT");
  StateBuilder s;
  s.Open(v1::NODE_KIND_SET).Int(1).Int(2).End();
  const auto set = std::move(s).Build();
  ASSERT_TRUE(set.ok());
  EXPECT_EQ(WhyNot(*set, {}, {"1"}), "CANNOT_SELECT");
}

TEST(SelectNodes, RefusesWhatIsNotThere) {
  EXPECT_EQ(WhyNot(Model(), {"model", "scheduler"}, {}), "COMPONENT_NOT_FOUND");
  EXPECT_EQ(WhyNot(Model(), {}, {"********* too many"}), "BAD_GLOB");
  EXPECT_EQ(WhyNot(Model(), {}, {"fc.weight", ""}), "NOTHING_MATCHES");
  EXPECT_EQ(WhyNot(Model(), {"optimizer"}, {"model.*"}), "NOTHING_MATCHES");
  EXPECT_EQ(ReasonOf(SelectNodes({}, {}, {}).status()), "BAD_STATE");
  const State state = Model();
  EXPECT_EQ(ReasonOf(SelectNodes(std::span(state.nodes).first(3), {}, {}).status()), "BAD_STATE");
}

TEST(SelectNodes, ALeafAsRootStays) {
  StateBuilder b;
  b.Int(3);
  const auto state = std::move(b).Build();
  ASSERT_TRUE(state.ok());
  EXPECT_THAT(Select(*state, {}, {"*"}), ElementsAre(""));
}

v1::Tensor Floats(std::vector<std::uint64_t> shape, std::vector<std::int64_t> strides = {}) {
  v1::Tensor meta;
  meta.set_dtype(v1::DTYPE_FLOAT32);
  meta.mutable_shape()->Add(shape.begin(), shape.end());
  meta.mutable_strides()->Add(strides.begin(), strides.end());
  return meta;
}

v1::StateNode TensorLeaf(std::uint64_t number) {
  v1::StateNode node;
  node.set_kind(v1::NODE_KIND_TENSOR);
  node.set_tensor(number);
  return node;
}

TEST(StateBuilder, AViewOfAStorageThatThereIsNotIsAMistake) {
  StateBuilder first;
  StateBuilder b = std::move(first);
  b.Leaf(TensorLeaf(b.AddView(Floats({3}), 7, 0)));
  EXPECT_EQ(ReasonOf(std::move(b).Build().status()), "BAD_TENSOR");
}

TEST(StateBuilder, TensorsThatShareMemoryAreViews) {
  const std::vector<float> memory(100);
  StateBuilder b;
  b.Dict();
  const std::size_t alone = b.AddStorage(std::as_bytes(std::span(memory).first(12)));
  b.Key("alone").Leaf(TensorLeaf(b.AddView(Floats({3, 4}), alone, 0)));
  const std::size_t tied = b.AddStorage(std::as_bytes(std::span(memory).subspan(12, 20)));
  b.Key("a")
      .Leaf(TensorLeaf(b.AddView(Floats({4, 5}), tied, 0)))
      .Key("b")
      .Leaf(TensorLeaf(b.AddView(Floats({4, 5}), tied, 0)));
  const std::size_t flat = b.AddStorage(std::as_bytes(std::span(memory).subspan(32)));
  b.Key("c")
      .Leaf(TensorLeaf(b.AddView(Floats({4}), flat, 32)))
      .Key("d")
      .Leaf(TensorLeaf(b.AddView(Floats({2}, {3}), flat, 16)));
  const auto state = std::move(b.End()).Build();
  ASSERT_TRUE(state.ok()) << state.status();
  ASSERT_EQ(state->tensors.size(), 6U);
  std::vector<std::string> paths;
  for (const Tensor& tensor : state->tensors) paths.push_back(tensor.meta.path());
  EXPECT_THAT(paths, ElementsAre("alone", "a", "b", "storage:0", "c", "d"));
  EXPECT_EQ(state->tensors[0].data, memory.data());
  EXPECT_EQ(state->tensors[2].meta.view_of(), 1U);
  EXPECT_EQ(state->tensors[3].data, memory.data() + 36);  // of the storage only what the two reach
  EXPECT_EQ(state->tensors[3].meta.shape(0), 32U);
  EXPECT_EQ(state->tensors[4].meta.view_offset_bytes(), 16U);
  EXPECT_EQ(state->tensors[5].meta.view_of(), 3U);
  EXPECT_EQ(state->nodes[5].tensor(), 5U);
}

TEST(StateBuilder, RefusesATensorBeyondItsStorage) {
  const std::vector<float> memory(10);
  StateBuilder b;
  b.Leaf(TensorLeaf(b.AddView(Floats({3, 4}), b.AddStorage(std::as_bytes(std::span(memory))), 0)));
  EXPECT_EQ(ReasonOf(std::move(b).Build().status()), "BAD_TENSOR");
}

}  // namespace
}  // namespace ckpt
