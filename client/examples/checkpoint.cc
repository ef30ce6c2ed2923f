#include "client/examples/checkpoint.h"

#include <map>
#include <span>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/examples/scalars.h"

namespace digits {
namespace {

using ckpt::v1::DTYPE_FLOAT32;
using ckpt::v1::DTYPE_INT64;
using ckpt::v1::DTYPE_UINT8;
using ckpt::v1::ROLE_BUFFER;
using ckpt::v1::ROLE_OPTIMIZER;
using ckpt::v1::ROLE_OTHER;
using ckpt::v1::ROLE_PARAMETER;

// Builds the state tree, and notes where its tensors lie.
class Description {
 public:
  ckpt::StateBuilder& tree() { return tree_; }

  void Add(std::string_view key, ckpt::v1::DType dtype, const std::vector<std::uint64_t>& shape, ckpt::v1::Role role,
           void* data) {
    ckpt::Tensor tensor;
    tensor.meta.set_dtype(dtype);
    for (const std::uint64_t extent : shape) tensor.meta.add_shape(extent);
    tensor.meta.set_role(role);
    tensor.meta.set_requires_grad(role == ROLE_PARAMETER);
    tensor.data = data;
    tree_.Key(key).Tensor(tensor);
    memory_.push_back(data);
  }

  void Add(std::string_view key, Parameter& parameter) {
    Add(key, DTYPE_FLOAT32, parameter.shape, ROLE_PARAMETER, parameter.value.data());
  }

  absl::StatusOr<TrainingState> Build() && {
    auto state = std::move(tree_).Build();
    if (!state.ok()) return state.status();
    return TrainingState{.state = *std::move(state), .memory = std::move(memory_)};
  }

 private:
  ckpt::StateBuilder tree_;
  std::vector<void*> memory_;
};

void DescribeModel(Network& network, Description& description) {
  description.tree().Key("model").OrderedDict();
  description.Add("fc1.weight", network.fc1.weight);
  description.Add("fc1.bias", network.fc1.bias);
  description.Add("bn.weight", network.bn.weight);
  description.Add("bn.bias", network.bn.bias);
  const std::vector<std::uint64_t>& columns = network.bn.bias.shape;
  description.Add("bn.running_mean", DTYPE_FLOAT32, columns, ROLE_BUFFER, network.bn.running_mean.data());
  description.Add("bn.running_var", DTYPE_FLOAT32, columns, ROLE_BUFFER, network.bn.running_var.data());
  description.Add("bn.num_batches_tracked", DTYPE_INT64, {}, ROLE_BUFFER, &network.bn.num_batches_tracked);
  description.Add("fc2.weight", network.fc2.weight);
  description.Add("fc2.bias", network.fc2.bias);
  description.tree().End();
}

void DescribeOptimizer(Adam& adam, Description& description) {
  ckpt::StateBuilder& tree = description.tree();
  tree.Key("optimizer").Dict().Key("state").Dict();
  const auto count = static_cast<std::int64_t>(adam.slots().size());
  for (std::int64_t i = 0; i < count; ++i) {
    Adam::Slot& slot = adam.slots()[static_cast<std::size_t>(i)];
    const std::vector<std::uint64_t>& shape = adam.parameters()[static_cast<std::size_t>(i)]->shape;
    tree.Key(i).Dict();
    description.Add("step", DTYPE_FLOAT32, {}, ROLE_OPTIMIZER, &slot.step);
    description.Add("exp_avg", DTYPE_FLOAT32, shape, ROLE_OPTIMIZER, slot.exp_avg.data());
    description.Add("exp_avg_sq", DTYPE_FLOAT32, shape, ROLE_OPTIMIZER, slot.exp_avg_sq.data());
    tree.End();
  }
  tree.End().Key("param_groups").List().Dict();
  const AdamOptions& options = adam.options();
  tree.Key("lr").Float(options.learning_rate);
  tree.Key("betas").Tuple().Float(options.beta1).Float(options.beta2).End();
  tree.Key("eps").Float(options.epsilon);
  tree.Key("weight_decay").Float(options.weight_decay);
  tree.Key("amsgrad").Bool(false);
  tree.Key("params").List();
  for (std::int64_t i = 0; i < count; ++i) tree.Int(i);
  tree.End().End().End().End();
}

// The training's numbers that are no tensors.
struct Numbers {
  std::int64_t epoch = 0;
  double best_val_acc = 0;
  AdamOptions adam;
};

absl::StatusOr<Numbers> ReadNumbers(std::span<const ckpt::v1::StateNode> nodes) {
  const Scalars scalars(nodes);
  Numbers numbers;
  for (const absl::Status& status :
       {scalars.Read("epoch", numbers.epoch), scalars.Read("best_val_acc", numbers.best_val_acc),
        scalars.Read("optimizer.param_groups.0.lr", numbers.adam.learning_rate),
        scalars.Read("optimizer.param_groups.0.betas.0", numbers.adam.beta1),
        scalars.Read("optimizer.param_groups.0.betas.1", numbers.adam.beta2),
        scalars.Read("optimizer.param_groups.0.eps", numbers.adam.epsilon),
        scalars.Read("optimizer.param_groups.0.weight_decay", numbers.adam.weight_decay)})
    if (!status.ok()) return status;
  return numbers;
}

// "DTYPE_FLOAT32 [64, 10]"
std::string Kind(const ckpt::v1::Tensor& tensor) {
  return absl::StrCat(ckpt::v1::DType_Name(tensor.dtype()), " [", absl::StrJoin(tensor.shape(), ", "), "]");
}

// Where each tensor of the checkpoint is to be written: matched by path, for a position proves nothing.
absl::StatusOr<std::vector<void*>> MatchTensors(const std::vector<ckpt::v1::Tensor>& stored, const TrainingState& own) {
  std::map<std::string, std::size_t> number_of;
  for (std::size_t i = 0; i < stored.size(); ++i) number_of[stored[i].path()] = i;
  std::vector<void*> buffers(stored.size());
  for (std::size_t i = 0; i < own.memory.size(); ++i) {
    const ckpt::v1::Tensor& wanted = own.state.tensors[i].meta;
    const auto found = number_of.find(wanted.path());
    if (found == number_of.end())
      return absl::FailedPreconditionError(absl::StrCat(wanted.path(), ": the checkpoint has no such tensor"));
    const ckpt::v1::Tensor& tensor = stored[found->second];
    if (Kind(tensor) != Kind(wanted))
      return absl::FailedPreconditionError(
          absl::StrCat(wanted.path(), ": the checkpoint has ", Kind(tensor), ", this program ", Kind(wanted)));
    if (tensor.strides_size() != 0 || tensor.has_view_of())
      return absl::FailedPreconditionError(absl::StrCat(wanted.path(), ": not a row-major tensor of its own"));
    buffers[found->second] = own.memory[i];
  }
  for (std::size_t i = 0; i < stored.size(); ++i)
    if (buffers[i] == nullptr)
      return absl::FailedPreconditionError(absl::StrCat(stored[i].path(), ": this program has no such tensor"));
  return buffers;
}

}  // namespace

absl::StatusOr<TrainingState> Describe(Training& training) {
  Description description;
  description.tree().Dict();
  DescribeModel(training.network, description);
  DescribeOptimizer(training.adam, description);
  Random::State& random = training.random.state();
  description.Add("rng", DTYPE_UINT8, {sizeof(random)}, ROLE_OTHER, random.data());
  description.tree().Key("epoch").Int(training.epoch).Key("best_val_acc").Float(training.best_val_acc).End();
  return std::move(description).Build();
}

absl::StatusOr<ckpt::SaveResult> SaveEpoch(ckpt::Client& client, const std::string& run, const EpochResult& result,
                                           Training& training) {
  const auto own = Describe(training);
  if (!own.ok()) return own.status();
  ckpt::SaveOptions options;
  options.run = run;
  options.epoch = training.epoch;
  options.step = training.network.bn.num_batches_tracked;
  options.metrics = {
      {"train_loss", result.train_loss}, {"val_loss", result.validation.loss}, {"val_acc", result.validation.accuracy}};
  options.primary_metric = "val_acc";
  return client.SaveState(std::move(options), own->state);
}

absl::Status RestoreTraining(ckpt::Restore& restore, Training& training) {
  const auto own = Describe(training);
  if (!own.ok()) return own.status();
  const auto buffers = MatchTensors(restore.tensors(), *own);
  if (!buffers.ok()) return buffers.status();
  const auto numbers = ReadNumbers(restore.nodes());
  if (!numbers.ok()) return numbers.status();

  if (absl::Status read = restore.ReadInto(*buffers); !read.ok()) return read;
  training.epoch = numbers->epoch;
  training.best_val_acc = numbers->best_val_acc;
  training.adam.options() = numbers->adam;
  return absl::OkStatus();
}

}  // namespace digits
