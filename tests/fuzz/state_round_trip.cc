#include "tests/fuzz/state_round_trip.h"

#include <memory>
#include <string>
#include <vector>

#include "base/data_type.h"
#include "client/tensor_set.h"
#include "tests/fuzz/oracle.h"
#include "tests/fuzz/scratch_folder.h"

namespace ckpt::fuzz {
namespace {

std::string_view BytesOf(const Tensor& tensor) {
  if (tensor.data == nullptr) return {};
  const auto size = SizeBytes(tensor.meta);
  Require(size.ok(), "a tensor that was read has a size");
  return {static_cast<const char*>(tensor.data), *size};
}

absl::StatusOr<std::unique_ptr<StateFileWriter>> Writer(const std::string& path, const State& state,
                                                        FileFormat format) {
  std::vector<v1::Tensor> tensors;
  for (const Tensor& tensor : state.tensors) tensors.push_back(tensor.meta);
  return StateFileWriter::Create(path, format, state.nodes, tensors, {.overwrite = true});
}

void RequireSame(const State& a, const State& b) {
  Require(a.nodes.size() == b.nodes.size(), "as many nodes after writing and reading again");
  for (std::size_t i = 0; i < a.nodes.size(); ++i)
    Require(a.nodes[i].SerializeAsString() == b.nodes[i].SerializeAsString(), "the same nodes");
  Require(a.tensors.size() == b.tensors.size(), "as many tensors");
  for (std::size_t i = 0; i < a.tensors.size(); ++i) {
    Require(a.tensors[i].meta.SerializeAsString() == b.tensors[i].meta.SerializeAsString(), "the same tensors");
    Require(BytesOf(a.tensors[i]) == BytesOf(b.tensors[i]), "the same bytes");
  }
}

}  // namespace

void CheckRoundTrip(const State& state, FileFormat format) {
  client::TensorSet set;
  for (const Tensor& tensor : state.tensors) Require(set.Add(tensor).ok(), "what was read can be saved");
  static const ScratchFolder folder;
  const std::string path = folder.path() / "again";
  auto writer = Writer(path, state, format);
  if (!writer.ok()) {
    Require(format == FileFormat::kPth && absl::IsInvalidArgument(writer.status()), "what was read can be written");
    return;
  }
  for (std::size_t i = 0; i < state.tensors.size(); ++i) {
    const std::string_view bytes = BytesOf(state.tensors[i]);
    Require((*writer)->Write(i, 0, std::as_bytes(std::span(bytes))).ok(), "a tensor's bytes can be written");
  }
  Require((*writer)->Finish().ok(), "a file of all bytes can be finished");
  const auto again = ReadStateFile(path, format);
  if (!again.ok()) std::fprintf(stderr, "%s\n", again.status().ToString().c_str());
  Require(again.ok(), "what was written can be read");
  RequireSame(state, (*again)->state());
}

}  // namespace ckpt::fuzz
