// ckptctl show.
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "ckpt/tensor_digest.h"
#include "ckpt/tensor_facts.h"
#include "client/cli/commands.h"
#include "client/cli/json.h"
#include "client/cli/text.h"

namespace ckpt::cli {
namespace {

std::string RoleName(v1::Role role) {
  switch (role) {
    case v1::ROLE_PARAMETER: return "parameter";
    case v1::ROLE_BUFFER: return "buffer";
    case v1::ROLE_OPTIMIZER: return "optimizer";
    default: return "other";
  }
}

std::string Shape(const v1::Tensor& tensor) { return absl::StrCat("[", absl::StrJoin(tensor.shape(), ", "), "]"); }

void PrintJson(const v1::Checkpoint& checkpoint, const std::vector<v1::Tensor>& tensors) {
  Json json = CheckpointJson(checkpoint);
  json["components"] = Json::array();
  for (const std::string& component : checkpoint.components()) json["components"].push_back(component);
  json["tensors"] = Json::array();
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const v1::Tensor& tensor = tensors[i];
    Json shape = Json::array();
    for (const std::uint64_t extent : tensor.shape()) shape.push_back(extent);
    json["tensors"].push_back({{"path", tensor.path()},
                               {"component", tensor.component()},
                               {"dtype", std::string(DTypeName(tensor.dtype()))},
                               {"shape", shape},
                               {"size_bytes", TensorSizeBytes(tensor)},
                               {"role", RoleName(tensor.role())},
                               {"requires_grad", tensor.requires_grad()},
                               {"digest", TensorDigest(tensors, i)}});
  }
  std::puts(Dump(json).c_str());
}

void PrintTable(const v1::Checkpoint& checkpoint, const std::vector<v1::Tensor>& tensors) {
  const auto line = [](const char* name, const std::string& value) {
    std::printf("%-12s %s\n", name, Printable(value).c_str());
  };
  line("run", checkpoint.run());
  line("epoch", absl::StrCat(checkpoint.epoch()));
  line("version", absl::StrCat(checkpoint.version()));
  if (checkpoint.has_step()) line("step", absl::StrCat(checkpoint.step()));
  for (const v1::Metric& metric : checkpoint.metrics())
    line("metric", absl::StrCat(metric.name(), "=", Number(metric.value())));
  for (const v1::Label& label : checkpoint.labels()) line("label", absl::StrCat(label.key(), "=", label.value()));
  for (const std::string& tag : checkpoint.tags()) line("tag", tag);
  line("created", Time(checkpoint.create_time()));
  if (checkpoint.world_size() > 1) line("saved by", absl::StrCat(checkpoint.world_size(), " trainers"));
  line("logical", HumanBytes(checkpoint.logical_bytes()));
  line("new", HumanBytes(checkpoint.new_bytes()));
  line("components", absl::StrJoin(checkpoint.components(), ", "));
  std::puts("");
  using enum Table::Align;
  Table table({{"TENSOR", kLeft}, {"DTYPE", kLeft}, {"SHAPE", kLeft}, {"BYTES", kRight}});
  for (const v1::Tensor& tensor : tensors)
    table.Add(
        {tensor.path(), std::string(DTypeName(tensor.dtype())), Shape(tensor), absl::StrCat(TensorSizeBytes(tensor))});
  std::fputs(table.Text().c_str(), stdout);
}

}  // namespace

absl::Status Show(Context context, const std::string& reference) {
  RestoreOptions options;
  options.reference = reference;
  const absl::StatusOr<std::unique_ptr<Restore>> restore = context.client.OpenRestore(options);
  if (!restore.ok()) return restore.status();
  (context.json ? PrintJson : PrintTable)((*restore)->checkpoint(), (*restore)->tensors());
  return absl::OkStatus();
}

}  // namespace ckpt::cli
