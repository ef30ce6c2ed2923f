// Describing and restoring a training, without a server: a checkpoint is played by a copy of the state.
#include "client/examples/checkpoint.h"

#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace digits {
namespace {

std::size_t SizeBytes(const ckpt::v1::Tensor& tensor) {
  std::size_t size = tensor.dtype() == ckpt::v1::DTYPE_FLOAT32 ? 4 : tensor.dtype() == ckpt::v1::DTYPE_INT64 ? 8 : 1;
  for (const std::uint64_t extent : tensor.shape()) size *= extent;
  return size;
}

// A checkpoint of the training as it was when this was made.
class CopiedCheckpoint final : public ckpt::Restore {
 public:
  explicit CopiedCheckpoint(Training& training) {
    const auto own = Describe(training);
    EXPECT_TRUE(own.ok()) << own.status();
    nodes_ = own->state.nodes;
    for (const ckpt::Tensor& tensor : own->state.tensors) {
      tensors_.push_back(tensor.meta);
      bytes_.emplace_back(static_cast<const char*>(tensor.data), SizeBytes(tensor.meta));
    }
  }

  [[nodiscard]] const ckpt::v1::Checkpoint& checkpoint() const override { return checkpoint_; }
  [[nodiscard]] const std::vector<ckpt::v1::StateNode>& nodes() const override { return nodes_; }
  [[nodiscard]] const std::vector<ckpt::v1::Tensor>& tensors() const override { return tensors_; }
  [[nodiscard]] bool selected(std::uint64_t tensor) const override { return tensor < tensors_.size(); }
  absl::Status Read(ckpt::TensorSink& /*sink*/) override {
    return absl::UnimplementedError("ReadInto is what is used");
  }
  void Pause() override {}
  [[nodiscard]] std::uint64_t fetched_bytes() const override { return 0; }
  absl::Status ReadSlices(std::span<const Slice>) override {
    return absl::UnimplementedError("ReadInto is what is used");
  }
  absl::Status ReadInto(std::span<void* const> buffers) override {
    for (std::size_t i = 0; i < bytes_.size(); ++i) std::memcpy(buffers[i], bytes_[i].data(), bytes_[i].size());
    return absl::OkStatus();
  }

  ckpt::v1::Tensor& Named(std::string_view path) {
    for (ckpt::v1::Tensor& tensor : tensors_)
      if (tensor.path() == path) return tensor;
    ADD_FAILURE() << "no tensor " << path;
    return tensors_[0];
  }
  void AddTensor(std::string_view path) {
    tensors_.emplace_back().set_path(std::string(path));
    bytes_.emplace_back();
  }
  std::vector<ckpt::v1::StateNode>& mutable_nodes() { return nodes_; }

 private:
  ckpt::v1::Checkpoint checkpoint_;
  std::vector<ckpt::v1::StateNode> nodes_;
  std::vector<ckpt::v1::Tensor> tensors_;
  std::vector<std::string> bytes_;
};

// All that Describe shows of it, bytes and numbers.
std::string Snapshot(Training& training) {
  const auto own = Describe(training);
  EXPECT_TRUE(own.ok()) << own.status();
  std::string all;
  for (const ckpt::v1::StateNode& node : own->state.nodes) all += node.SerializeAsString();
  for (const ckpt::Tensor& tensor : own->state.tensors)
    all.append(static_cast<const char*>(tensor.data), SizeBytes(tensor.meta));
  return all;
}

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() {
    TrainEpoch(dataset_, training_);
    training_.adam.options().learning_rate = 0.002;
  }

  Dataset dataset_ = *ParseDigits(EmbeddedCsv());
  Training training_{1};
  Training fresh_{2};
};

TEST_F(CheckpointTest, ARestoredTrainingGoesOnBitForBit) {
  CopiedCheckpoint checkpoint(training_);
  const absl::Status restored = RestoreTraining(checkpoint, fresh_);
  ASSERT_TRUE(restored.ok()) << restored;
  EXPECT_EQ(Snapshot(fresh_), Snapshot(training_));
  const EpochResult result = TrainEpoch(dataset_, training_);
  EXPECT_EQ(TrainEpoch(dataset_, fresh_).validation.loss, result.validation.loss);
  EXPECT_EQ(Snapshot(fresh_), Snapshot(training_));
}

TEST_F(CheckpointTest, TensorsAreFoundByPathWhereverTheyStand) {
  // As another program may have saved it: the two swapped, and the numbers in the tree with them.
  class Swapped final : public ckpt::Restore {
   public:
    explicit Swapped(CopiedCheckpoint& inner) : inner_(inner), tensors_(inner.tensors()) {
      std::swap(tensors_.front(), tensors_.back());
    }
    [[nodiscard]] const ckpt::v1::Checkpoint& checkpoint() const override { return inner_.checkpoint(); }
    [[nodiscard]] const std::vector<ckpt::v1::StateNode>& nodes() const override { return inner_.nodes(); }
    [[nodiscard]] const std::vector<ckpt::v1::Tensor>& tensors() const override { return tensors_; }
    [[nodiscard]] bool selected(std::uint64_t tensor) const override { return inner_.selected(tensor); }
    absl::Status Read(ckpt::TensorSink& sink) override { return inner_.Read(sink); }
    absl::Status ReadSlices(std::span<const Slice> slices) override { return inner_.ReadSlices(slices); }
    void Pause() override { inner_.Pause(); }
    [[nodiscard]] std::uint64_t fetched_bytes() const override { return inner_.fetched_bytes(); }
    absl::Status ReadInto(std::span<void* const> buffers) override {
      std::vector<void*> swapped(buffers.begin(), buffers.end());
      std::swap(swapped.front(), swapped.back());
      return inner_.ReadInto(swapped);
    }

   private:
    CopiedCheckpoint& inner_;
    std::vector<ckpt::v1::Tensor> tensors_;
  };
  CopiedCheckpoint checkpoint(training_);
  Swapped swapped(checkpoint);
  const absl::Status restored = RestoreTraining(swapped, fresh_);
  ASSERT_TRUE(restored.ok()) << restored;
  EXPECT_EQ(Snapshot(fresh_), Snapshot(training_));
}

TEST_F(CheckpointTest, WhatDoesNotFitIsNamedAndNothingIsTouched) {
  const std::string before = Snapshot(fresh_);
  struct Case {
    std::function<void(CopiedCheckpoint&)> change;
    std::string named;
  };
  for (const auto& [change, named] : std::vector<Case>{
           {[](auto& c) { c.Named("model.fc1.bias").set_path("model.fc9.bias"); },
            "model.fc1.bias: the checkpoint has no"},
           {[](auto& c) { c.Named("model.fc2.weight").set_shape(0, 11); }, "model.fc2.weight: the checkpoint has"},
           {[](auto& c) { c.Named("rng").set_dtype(ckpt::v1::DTYPE_INT8); }, "rng: the checkpoint has DTYPE_INT8 [32]"},
           {[](auto& c) { c.Named("model.fc2.weight").add_strides(1); }, "model.fc2.weight: not a row-major"},
           {[](auto& c) { c.AddTensor("model.fc3.bias"); }, "model.fc3.bias: this program has no"},
           {[](auto& c) { c.mutable_nodes().erase(c.mutable_nodes().end() - 2); }, "epoch: the checkpoint has no"},
       }) {
    CopiedCheckpoint checkpoint(training_);
    change(checkpoint);
    const absl::Status refused = RestoreTraining(checkpoint, fresh_);
    EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition) << named;
    EXPECT_TRUE(std::string(refused.message()).starts_with(named)) << refused;
    EXPECT_EQ(Snapshot(fresh_), before) << named;
  }
}

}  // namespace
}  // namespace digits
