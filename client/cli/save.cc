// ckptctl save.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ckpt/formats.h"
#include "ckpt/status.h"
#include "ckpt/tensor_facts.h"
#include "client/cli/commands.h"
#include "client/cli/json.h"
#include "client/cli/progress_bar.h"
#include "client/cli/text.h"

namespace ckpt::cli {
namespace {

template <typename T>
std::optional<T> Read(const void* bytes, std::size_t size_bytes) {
  T number;
  if (size_bytes != sizeof number || bytes == nullptr) return std::nullopt;
  std::memcpy(&number, bytes, sizeof number);
  return number;
}

template <typename T>
std::optional<double> ReadNumber(const void* bytes, std::size_t size_bytes) {
  const std::optional<T> number = Read<T>(bytes, size_bytes);
  return number.has_value() ? std::optional(static_cast<double>(*number)) : std::nullopt;
}

std::optional<double> NumberInTensor(const Tensor& tensor) {
  const std::size_t size = TensorSizeBytes(tensor.meta);
  if (tensor.meta.shape_size() != 0) return std::nullopt;
  switch (tensor.meta.dtype()) {
    case v1::DTYPE_FLOAT64: return ReadNumber<double>(tensor.data, size);
    case v1::DTYPE_FLOAT32: return ReadNumber<float>(tensor.data, size);
    case v1::DTYPE_INT64: return ReadNumber<std::int64_t>(tensor.data, size);
    default: return std::nullopt;
  }
}

// The number in a leaf, if it is one: a float, an int or one of numpy's. A bool is none.
std::optional<double> NumberIn(const v1::StateNode& node) {
  const v1::Scalar& value = node.value();
  const std::string& bytes = value.bytes_value();
  if (node.kind() == v1::NODE_KIND_SCALAR && value.has_int_value()) return static_cast<double>(value.int_value());
  if (node.kind() == v1::NODE_KIND_SCALAR && value.has_float_bits()) return std::bit_cast<double>(value.float_bits());
  if (node.kind() != v1::NODE_KIND_NUMPY_SCALAR) return std::nullopt;
  if (node.type_name() == "<f8") return ReadNumber<double>(bytes.data(), bytes.size());
  if (node.type_name() == "<f4") return ReadNumber<float>(bytes.data(), bytes.size());
  if (node.type_name() == "<i8") return ReadNumber<std::int64_t>(bytes.data(), bytes.size());
  return std::nullopt;
}

constexpr std::size_t kMaxMetrics = 100;  // of a checkpoint
constexpr std::size_t kMaxMetricName = 200;

bool IsUtf8(const std::string& text) {
  try {
    (void)Json(text).dump();
  } catch (const Json::type_error&) {
    return false;
  }
  return true;
}

// Whether a metric can have that name.
bool IsMetricName(const std::string& name) {
  const auto banned = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == ':'; };
  return !name.empty() && name.size() <= kMaxMetricName && std::none_of(name.begin(), name.end(), banned) &&
         IsUtf8(name);
}

// What a file's top level says about itself.
struct TopLevel {
  std::optional<std::int64_t> epoch;
  std::optional<std::int64_t> step;
  std::map<std::string, double> metrics;
  std::map<std::string, double> tensors;  // those of no dimension: metrics in a trainer's file, weights in others
};

// The whole number in a leaf: an int, or one of numpy's or PyTorch's.
std::optional<std::int64_t> WholeNumberIn(const v1::StateNode& node, const State& state) {
  const v1::Scalar& value = node.value();
  if (node.kind() == v1::NODE_KIND_SCALAR && value.has_int_value()) return value.int_value();
  if (node.kind() == v1::NODE_KIND_NUMPY_SCALAR && node.type_name() == "<i8")
    return Read<std::int64_t>(value.bytes_value().data(), value.bytes_value().size());
  if (node.kind() != v1::NODE_KIND_TENSOR) return std::nullopt;
  const Tensor& tensor = state.tensors[node.tensor()];
  if (tensor.meta.shape_size() != 0 || tensor.meta.dtype() != v1::DTYPE_INT64) return std::nullopt;
  return Read<std::int64_t>(tensor.data, TensorSizeBytes(tensor.meta));
}

void Take(const v1::StateNode& node, const State& state, TopLevel& top) {
  const std::string& key = node.key().str_value();
  if (key == "epoch") {
    top.epoch = WholeNumberIn(node, state);
  } else if (key == "step" || key == "global_step") {
    if (const auto step = WholeNumberIn(node, state); step.has_value()) top.step = step;
  } else if (!IsMetricName(key)) {
    return;
  } else if (const auto number = NumberIn(node); number.has_value()) {
    top.metrics[key] = *number;
  } else if (node.kind() == v1::NODE_KIND_TENSOR) {
    if (const auto item = NumberInTensor(state.tensors[node.tensor()]); item.has_value()) top.tensors[key] = *item;
  }
}

TopLevel ReadTopLevel(const State& state) {
  TopLevel top;
  std::vector<std::uint64_t> open;  // nodes left in each container
  for (const v1::StateNode& node : state.nodes) {
    if (open.size() == 1 && node.key().has_str_value()) Take(node, state, top);
    if (!open.empty()) --open.back();
    open.push_back(node.child_count() + node.attribute_count());
    while (!open.empty() && open.back() == 0) open.pop_back();
  }
  if (top.epoch.has_value()) top.metrics.merge(top.tensors);
  return top;
}

// The numbers of the file and those of the command line, which come before them. Of a file with more numbers than
// metrics may be, none: there it is no few results that stand at the top level.
std::vector<std::pair<std::string, double>> Metrics(std::map<std::string, double> in_file, const SaveCommand& command) {
  std::map<std::string, double> metrics = command.metrics;
  metrics.merge(in_file);
  if (metrics.size() > kMaxMetrics && metrics.size() > command.metrics.size()) {
    std::fprintf(
        stderr,
        "ckptctl: %s has too many numbers at its top level to be metrics, of which a checkpoint has %zu at most; "
        "none is taken but those of --metric NAME=VALUE\n",
        Printable(command.file).c_str(), kMaxMetrics);
    metrics = command.metrics;
  }
  return {metrics.begin(), metrics.end()};
}

constexpr int kFileChanged = 4;  // as ExitCode has it for an aborted save

// What is said when the file's bytes cannot be read any more: the system says so with a signal, as the file is mapped.
std::string unreadable;

void OnUnreadable(int) {
  (void)!write(STDERR_FILENO, unreadable.data(), unreadable.size());
  _exit(kFileChanged);
}

void WatchForUnreadable(const std::string& file) {
  unreadable =
      absl::StrCat("ckptctl: ", Printable(file),
                   " cannot be read any more: it was cut off while it was read, or its disk fails; nothing was "
                   "saved [FILE_CHANGED]\n");
  struct sigaction action {};
  action.sa_handler = OnUnreadable;
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace

absl::Status SaveFile(Context context, const SaveCommand& command) {
  const absl::StatusOr<FileFormat> format = command.format.has_value() ? *command.format : FormatOfPath(command.file);
  if (!format.ok()) return format.status();
  WatchForUnreadable(command.file);
  ReadFileOptions read;
  read.check_crc = command.check_crc;
  const absl::StatusOr<std::unique_ptr<StateFile>> file = ReadStateFile(command.file, *format, read);
  if (!file.ok()) return file.status();
  TopLevel top = ReadTopLevel((*file)->state());
  if (!command.epoch.has_value() && !top.epoch.has_value())
    return MakeError(
        absl::StatusCode::kInvalidArgument, "NO_EPOCH",
        absl::StrCat(command.file, " has no integer 'epoch' at its top level; say which epoch it is: --epoch N"));

  // So that only what differs from the run's last checkpoint is sent. Where there is none, everything is.
  if (const absl::Status status = context.client.Remember(command.run + ":latest"); absl::IsUnavailable(status))
    return status;
  SaveOptions options;
  options.run = command.run;
  options.epoch = command.epoch.has_value() ? *command.epoch : *top.epoch;
  options.step = command.step.has_value() ? command.step : top.step;
  options.metrics = Metrics(std::move(top.metrics), command);
  options.labels.assign(command.labels.begin(), command.labels.end());
  options.primary_metric = command.primary_metric;
  absl::StatusOr<SaveResult> saved;
  {
    ProgressBar bar("saving");
    options.progress = [&](std::uint64_t done, std::uint64_t total) { bar.Show(done, total); };
    saved = context.client.SaveState(std::move(options), (*file)->state());
  }
  if (!saved.ok()) return saved.status();
  const v1::Checkpoint& checkpoint = saved->checkpoint;
  if (context.json) {
    std::puts(Dump(CheckpointJson(checkpoint)).c_str());
  } else {
    std::printf("saved %s: %s, %s new\n", Name(checkpoint).c_str(), HumanBytes(checkpoint.logical_bytes()).c_str(),
                HumanBytes(checkpoint.new_bytes()).c_str());
  }
  return absl::OkStatus();
}

}  // namespace ckpt::cli
