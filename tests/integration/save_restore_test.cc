// What is saved comes back, through a real server.
#include <limits>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/data_type.h"
#include "ckpt/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/client_fixture.h"

namespace ckpt::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using SaveRestore = ClientTest;

TEST_F(SaveRestore, OneTensorRoundTrips) {
  const State state = ModelState({memory_.Floats(3 << 20)});
  const SaveResult saved = SaveOk(*client_, 1, state);
  EXPECT_EQ(saved.sent_bytes, 12U << 20);
  EXPECT_EQ(saved.cited_bytes, 0U);
  EXPECT_EQ(saved.checkpoint.run(), "run");
  EXPECT_EQ(saved.checkpoint.version(), 1U);
  ExpectRestores(*client_, "run@1", state);
}

TEST_F(SaveRestore, SizesAroundTheLimitsRoundTrip) {
  std::vector<Tensor> tensors;
  for (const std::uint64_t size :
       {0U, 1U, 4095U, 4096U, 4097U, (1U << 20) - 1, 1U << 20, (1U << 20) + 1, (3U << 20) + 17})
    tensors.push_back(memory_.Random(v1::DTYPE_UINT8, {size}));
  const State state = ModelState(tensors);
  SaveOk(*client_, 1, state);
  ExpectRestores(*client_, "run@1", state);
}

TEST_F(SaveRestore, EveryTypeAndLayoutRoundTrips) {
  StateBuilder builder;
  builder.Dict().Key("types").Dict();
  for (int dtype = v1::DType_MIN + 1; dtype <= v1::DType_MAX; ++dtype)
    builder.Key(dtype).Tensor(memory_.Random(static_cast<v1::DType>(dtype), {3, 500}));
  builder.End();
  builder.Key("scalar").Tensor(memory_.Random(v1::DTYPE_FLOAT64, {}));
  builder.Key("empty").Tensor(memory_.Random(v1::DTYPE_FLOAT64, {5, 0, 3}));
  Tensor channels_last = memory_.Random(v1::DTYPE_FLOAT32, {2, 3, 40, 50});
  for (const int stride : {6000, 1, 150, 3}) channels_last.meta.add_strides(stride);
  channels_last.meta.set_requires_grad(true);
  channels_last.meta.set_role(v1::ROLE_PARAMETER);
  channels_last.meta.set_device("cuda:1");
  builder.Key("channels_last").Tensor(channels_last);
  // A storage that two views show, and a tensor that stands in the tree twice.
  Tensor storage = memory_.Floats(5000);
  storage.meta.set_path("storage:0");
  const std::uint64_t number = builder.AddTensor(storage);
  for (const std::uint64_t offset : {0U, 400U}) {
    Tensor view;
    view.meta.set_dtype(v1::DTYPE_FLOAT32);
    view.meta.add_shape(10);
    view.meta.add_shape(10);
    view.meta.add_strides(100);
    view.meta.add_strides(2);
    view.meta.set_view_of(number);
    view.meta.set_view_offset_bytes(offset);
    builder.Key(absl::StrCat("view", offset)).Tensor(view);
  }
  v1::StateNode tied;
  tied.set_kind(v1::NODE_KIND_PARAMETER);
  tied.set_tensor(builder.AddTensor(memory_.Floats(20000)));
  builder.Key("a").Leaf(tied).Key("b").Leaf(tied);
  builder.Key("nan").Float(std::numeric_limits<double>::quiet_NaN()).Key(-3).None().Key("list").List().Bool(true).End();
  builder.End();
  const auto state = std::move(builder).Build();
  ASSERT_TRUE(state.ok()) << state.status();
  SaveOk(*client_, 1, *state);
  ExpectRestores(*client_, "run@1", *state);
}

TEST_F(SaveRestore, AMillionTinyTensorsRoundTrip) {
  std::vector<Tensor> tensors;
  for (int i = 0; i < 1000000; ++i) tensors.push_back(memory_.Floats(8));
  const State state = ModelState(tensors);
  SaveOk(*client_, 1, state);
  ExpectRestores(*client_, "run@1", state);
}

TEST_F(SaveRestore, KeysThatMakeOnePathAreTwoTensors) {
  StateBuilder builder;
  builder.Dict().Key("a.b").Tensor(memory_.Floats(3000)).Key("a").Dict().Key("b").Tensor(memory_.Floats(2000)).End();
  builder.Key("a\n").Tensor(memory_.Floats(1)).Key("a\\x0a").Tensor(memory_.Floats(2));
  const auto state = std::move(builder.End()).Build();
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->tensors[0].meta.path(), state->tensors[1].meta.path());
  SaveOk(*client_, 1, *state);
  ExpectRestores(*client_, "run@1", *state);
}

TEST_F(SaveRestore, AFlatStateOfManyKeysRoundTrips) {
  StateBuilder builder;
  builder.OrderedDict();
  for (int i = 0; i < 20000; ++i)
    builder.Key("module.layers." + std::to_string(i) + ".self_attention.projection.weight")
        .Tensor(memory_.Floats(1024));
  const auto state = std::move(builder.End()).Build();
  ASSERT_TRUE(state.ok()) << state.status();
  SaveOk(*client_, 1, *state);
  ExpectRestores(*client_, "run@1", *state);
  EXPECT_EQ(client_->GetCheckpoint("run@1")->components_size(), 0);
  RestoreOptions options = Of("run@1");
  options.components = {"module.layers.1.self_attention.projection.weight"};
  EXPECT_TRUE(absl::IsNotFound(client_->OpenRestore(options).status()));
  options.components = {};
  options.include = {"module.layers.1.*"};
  EXPECT_EQ((*client_->OpenRestore(options))->nodes().size(), 2U);
}

TEST_F(SaveRestore, ManyTensorsOfOneChunkRoundTrip) {
  // More than one Want has room for.
  std::vector<Tensor> tensors;
  for (int i = 0; i < 20000; ++i) tensors.push_back(memory_.Random(v1::DTYPE_UINT8, {4096}));
  const State state = ModelState(tensors);
  SaveOk(*client_, 1, state);
  ExpectRestores(*client_, "run@1", state);
}

TEST_F(SaveRestore, SelectsTensorsUnderEachOfTheirNames) {
  StateBuilder builder;
  builder.Dict().Key("model").OrderedDict();
  const Tensor shared = memory_.Floats(5000);
  v1::StateNode node;
  node.set_kind(v1::NODE_KIND_PARAMETER);
  node.set_tensor(builder.AddTensor(shared));
  builder.Key("wte.weight").Leaf(node).Key("other").Tensor(memory_.Floats(5000)).Key("head.weight").Leaf(node).End();
  builder.Key("optimizer").Dict().Key("small").Tensor(memory_.Floats(3)).End().Key("epoch").Int(1).End();
  const auto state = std::move(builder).Build();
  ASSERT_TRUE(state.ok()) << state.status();
  SaveOk(*client_, 1, *state);

  RestoreOptions options = Of("run@1");
  options.include = {"*head*"};
  const auto restore = client_->OpenRestore(options);
  ASSERT_TRUE(restore.ok()) << restore.status();
  EXPECT_EQ((*restore)->nodes().size(), 3U);
  EXPECT_TRUE((*restore)->selected(0));
  EXPECT_FALSE((*restore)->selected(1));
  EXPECT_FALSE((*restore)->selected(2));
  EXPECT_TRUE((*restore)->tensors()[2].inline_data().empty());
  std::vector<char> bytes(20000);
  ASSERT_TRUE((*restore)->ReadInto(std::vector<void*>{bytes.data(), nullptr, nullptr}).ok());
  EXPECT_EQ(std::memcmp(bytes.data(), shared.data, bytes.size()), 0);
  // What was not selected has no buffer, and a second read is as good as the first.
  EXPECT_THAT(std::string((*restore)->ReadInto(std::vector<void*>(3, bytes.data())).message()),
              HasSubstr("was not selected"));
  EXPECT_TRUE((*restore)->ReadInto(std::vector<void*>{bytes.data(), nullptr, nullptr}).ok());

  options.include = {};
  options.components = {"optimizer"};
  const auto optimizer = client_->OpenRestore(options);
  ASSERT_TRUE(optimizer.ok()) << optimizer.status();
  EXPECT_TRUE((*optimizer)->selected(2));
  EXPECT_FALSE((*optimizer)->selected(0));
  options.components = {"scheduler"};
  EXPECT_EQ(ReasonOf(client_->OpenRestore(options).status()), "COMPONENT_NOT_FOUND");
}

TEST_F(SaveRestore, TheSinksErrorEndsTheRestoreWithIt) {
  SaveOk(*client_, 1, ModelState({memory_.Floats(1 << 20)}));
  class FullDisk : public TensorSink {
    absl::Status Write(std::uint64_t, std::uint64_t, std::span<const std::byte>) override {
      return absl::UnavailableError("disk full");
    }
  } sink;
  const auto restore = client_->OpenRestore(Of("run:latest"));
  ASSERT_TRUE(restore.ok()) << restore.status();
  EXPECT_EQ((*restore)->Read(sink), absl::UnavailableError("disk full"));
}

TEST_F(SaveRestore, ReadsWhatIsThere) {
  SaveOptions options = At("run", 1);
  options.step = 10;
  options.metrics = {{"val_loss", 0.5}};
  options.labels = {{"user", "ada"}};
  const State state = ModelState({memory_.Floats(10)});
  auto save = client_->BeginSave(options);
  ASSERT_TRUE(save.ok()) << save.status();
  ASSERT_TRUE((*save)->AddTensor(state.tensors[0]).ok());
  const std::vector<std::pair<std::string, double>> late = {{"accuracy", 0.9}};
  const auto saved = (*save)->Commit(state.nodes, late);
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_FALSE((*save)->Commit(state.nodes, late).ok());
  SaveOk(*client_, 2, state);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(client_->SaveState(At(absl::StrCat("other", i), 1), state).ok());

  const auto checkpoint = client_->GetCheckpoint("run@1");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->step(), 10);
  EXPECT_EQ(checkpoint->metrics_size(), 2);
  EXPECT_EQ(checkpoint->labels(0).value(), "ada");
  const auto run = client_->GetRun("run");
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->checkpoint_count(), 2U);
  const auto checkpoints = client_->ListCheckpoints("run");
  ASSERT_TRUE(checkpoints.ok()) << checkpoints.status();
  ASSERT_EQ(checkpoints->items.size(), 2U);
  EXPECT_EQ(checkpoints->items[1].epoch(), 2);

  std::vector<std::string> names;
  std::string page;
  do {
    const auto runs = client_->ListRuns(page, 3);
    ASSERT_TRUE(runs.ok()) << runs.status();
    for (const v1::Run& r : runs->items) names.push_back(r.name());
    page = runs->next;
  } while (!page.empty());
  EXPECT_THAT(names, ElementsAre("other0", "other1", "other2", "run"));
}

TEST_F(SaveRestore, BadInputGetsAClearError) {
  EXPECT_EQ(ReasonOf(client_->BeginSave(At("../etc", 1)).status()), "BAD_NAME");
  EXPECT_EQ(ReasonOf(client_->GetRun("absent").status()), "RUN_NOT_FOUND");
  EXPECT_TRUE(absl::IsNotFound(client_->OpenRestore(Of("absent@1")).status()));
  EXPECT_EQ(ReasonOf(client_->OpenRestore(Of("run@@")).status()), "BAD_REFERENCE");
  EXPECT_EQ(ReasonOf(client_->Remember("absent@1")), "RUN_NOT_FOUND");
  EXPECT_EQ(ReasonOf(Client::Connect({.address = "nowhere"}).status()), "BAD_ADDRESS");

  auto save = client_->BeginSave(At("run", 1));
  ASSERT_TRUE(save.ok()) << save.status();
  State lost = ModelState({memory_.Floats(10)});
  for (int i = 0; i < 2; ++i) ASSERT_TRUE((*save)->AddTensor(lost.tensors[0]).ok());
  EXPECT_EQ(ReasonOf((*save)->Commit(lost.nodes, {}).status()), "BAD_STATE");

  State large = ModelState({});
  large.nodes[2].mutable_value()->set_bytes_value(std::string(5 << 20, 'x'));
  const absl::Status refused = client_->SaveState(At("run", 1), large).status();
  EXPECT_EQ(ReasonOf(refused), "TOO_LARGE");
  EXPECT_THAT(refused.message(), HasSubstr("epoch: a value of"));
}

TEST_F(SaveRestore, NothingIsVisibleOfAnAbandonedSave) {
  {
    auto save = client_->BeginSave(At("run", 1));
    ASSERT_TRUE(save.ok()) << save.status();
    ASSERT_TRUE((*save)->AddTensor(memory_.Floats(1000)).ok());
  }
  EXPECT_TRUE(absl::IsNotFound(client_->GetRun("run").status()));
}

TEST_F(SaveRestore, TwoSavesOfOneEpochAtOnceAreTwoWholeVersions) {
  const State states[] = {ModelState({memory_.Floats(2 << 20)}), ModelState({memory_.Floats(2 << 20)})};
  std::uint64_t versions[2] = {};
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 2; ++i)
      threads.emplace_back([&, i] { versions[i] = SaveOk(*client_, 1, states[i]).checkpoint.version(); });
  }
  EXPECT_THAT(std::vector(versions, versions + 2), ::testing::UnorderedElementsAre(1U, 2U));
  for (int i = 0; i < 2; ++i) ExpectRestores(*client_, absl::StrCat("run@1#", versions[i]), states[i]);
}

}  // namespace
}  // namespace ckpt::testing
