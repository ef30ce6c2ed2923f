// ckptctl save.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
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

// A number in a file.
struct Number {
  double value = 0;
  std::optional<std::int64_t> whole = {};  // an integer's, if it fits
};

template <typename T>
std::optional<T> Read(std::string_view bytes) {
  T number;
  if (bytes.size() != sizeof number) return std::nullopt;
  std::memcpy(&number, bytes.data(), sizeof number);
  return number;
}

template <typename T>
std::optional<Number> ReadNumber(std::string_view bytes) {
  const std::optional<T> number = Read<T>(bytes);
  if (!number.has_value()) return std::nullopt;
  Number out{.value = static_cast<double>(*number)};
  if constexpr (std::is_integral_v<T>)
    if (std::in_range<std::int64_t>(*number)) out.whole = static_cast<std::int64_t>(*number);
  return out;
}

double FromFloat16(std::uint16_t bits) {
  const int exponent = bits >> 10 & 0x1f;
  const int fraction = bits & 0x3ff;
  double size = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(0x400 + fraction, exponent - 25);
  if (exponent == 0x1f) size = fraction == 0 ? HUGE_VAL : std::nan("");
  return std::copysign(size, (bits & 0x8000) != 0 ? -1.0 : 1.0);
}

double FromBFloat16(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

std::optional<Number> ReadSmallFloat(std::string_view bytes, double (*decode)(std::uint16_t)) {
  const auto bits = Read<std::uint16_t>(bytes);
  return bits.has_value() ? std::optional(Number{.value = decode(*bits)}) : std::nullopt;
}

// A bool is no number.
std::optional<Number> NumberOf(v1::DType dtype, std::string_view bytes) {
  switch (dtype) {
    case v1::DTYPE_FLOAT64: return ReadNumber<double>(bytes);
    case v1::DTYPE_FLOAT32: return ReadNumber<float>(bytes);
    case v1::DTYPE_FLOAT16: return ReadSmallFloat(bytes, FromFloat16);
    case v1::DTYPE_BFLOAT16: return ReadSmallFloat(bytes, FromBFloat16);
    case v1::DTYPE_INT64: return ReadNumber<std::int64_t>(bytes);
    case v1::DTYPE_INT32: return ReadNumber<std::int32_t>(bytes);
    case v1::DTYPE_INT16: return ReadNumber<std::int16_t>(bytes);
    case v1::DTYPE_INT8: return ReadNumber<std::int8_t>(bytes);
    case v1::DTYPE_UINT64: return ReadNumber<std::uint64_t>(bytes);
    case v1::DTYPE_UINT32: return ReadNumber<std::uint32_t>(bytes);
    case v1::DTYPE_UINT16: return ReadNumber<std::uint16_t>(bytes);
    case v1::DTYPE_UINT8: return ReadNumber<std::uint8_t>(bytes);
    default: return std::nullopt;
  }
}

v1::DType NumpyType(std::string_view name) {
  static constexpr std::pair<std::string_view, v1::DType> kTypes[] = {
      {"<f8", v1::DTYPE_FLOAT64}, {"<f4", v1::DTYPE_FLOAT32}, {"<f2", v1::DTYPE_FLOAT16}, {"<i8", v1::DTYPE_INT64},
      {"<i4", v1::DTYPE_INT32},   {"<i2", v1::DTYPE_INT16},   {"|i1", v1::DTYPE_INT8},    {"<u8", v1::DTYPE_UINT64},
      {"<u4", v1::DTYPE_UINT32},  {"<u2", v1::DTYPE_UINT16},  {"|u1", v1::DTYPE_UINT8}};
  for (const auto& [numpy, dtype] : kTypes)
    if (numpy == name) return dtype;
  return v1::DTYPE_UNSPECIFIED;
}

// The number in a tensor of one element.
std::optional<Number> NumberInTensor(const State& state, std::uint64_t number) {
  const Tensor& tensor = state.tensors[number];
  const auto is_one = [](std::uint64_t extent) { return extent == 1; };
  if (!std::all_of(tensor.meta.shape().begin(), tensor.meta.shape().end(), is_one)) return std::nullopt;
  const void* const data = tensor.meta.has_view_of() ? state.tensors[tensor.meta.view_of()].data : tensor.data;
  if (data == nullptr) return std::nullopt;
  const char* const bytes = static_cast<const char*>(data) + tensor.meta.view_offset_bytes();
  return NumberOf(tensor.meta.dtype(), {bytes, TensorSizeBytes(tensor.meta)});
}

// The number in a leaf, if it is one: Python's, numpy's or PyTorch's.
std::optional<Number> NumberIn(const v1::StateNode& node, const State& state) {
  const v1::Scalar& value = node.value();
  switch (node.kind()) {
    case v1::NODE_KIND_SCALAR:
      if (value.has_int_value()) return Number{static_cast<double>(value.int_value()), value.int_value()};
      if (value.has_float_bits()) return Number{.value = std::bit_cast<double>(value.float_bits())};
      return std::nullopt;
    case v1::NODE_KIND_NUMPY_SCALAR: return NumberOf(NumpyType(node.type_name()), value.bytes_value());
    case v1::NODE_KIND_TENSOR: return NumberInTensor(state, node.tensor());
    default: return std::nullopt;
  }
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
  return !name.empty() && name.size() <= kMaxMetricName && name.find(':') == name.npos && Printable(name) == name &&
         IsUtf8(name);
}

// What a file's top level says about itself.
struct TopLevel {
  std::optional<std::int64_t> epoch;
  std::optional<std::int64_t> step;
  std::map<std::string, double> metrics;
  std::map<std::string, double> tensors;  // those of one element: metrics in a trainer's file, weights in others
};

void Take(const v1::StateNode& node, const State& state, TopLevel& top) {
  const std::string& key = node.key().str_value();
  const std::optional<Number> number = NumberIn(node, state);
  const std::optional<std::int64_t> whole = number.has_value() ? number->whole : std::nullopt;
  if (key == "epoch") {
    top.epoch = whole;
  } else if (key == "step" || key == "global_step") {
    if (whole.has_value()) top.step = whole;
  } else if (number.has_value() && IsMetricName(key)) {
    (node.kind() == v1::NODE_KIND_TENSOR ? top.tensors : top.metrics)[key] = number->value;
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
  const std::string best_by = command.primary_metric.substr(0, command.primary_metric.find(':'));
  const auto is_best_by = [&](const v1::Metric& metric) { return metric.name() == best_by; };
  if (!best_by.empty() && std::none_of(checkpoint.metrics().begin(), checkpoint.metrics().end(), is_best_by))
    std::fprintf(stderr, "ckptctl: %s has no metric %s, by which %s:best goes from now on\n", Name(checkpoint).c_str(),
                 Printable(best_by).c_str(), checkpoint.run().c_str());
  if (context.json) {
    std::puts(Dump(CheckpointJson(checkpoint)).c_str());
  } else {
    std::printf("saved %s: %s, %s new\n", Name(checkpoint).c_str(), HumanBytes(checkpoint.logical_bytes()).c_str(),
                HumanBytes(checkpoint.new_bytes()).c_str());
  }
  return absl::OkStatus();
}

}  // namespace ckpt::cli
