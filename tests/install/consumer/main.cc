// Saves one tensor to the server at argv[1], restores it, and writes it to the file argv[2].
#include <iostream>
#include <vector>

#include "ckpt/client.h"
#include "ckpt/formats.h"
#include "ckpt/state.h"

namespace {

absl::Status Run(const std::string& address, const std::string& path) {
  auto client = ckpt::Client::Connect({.address = address});
  if (!client.ok()) return client.status();

  std::vector<float> weight(5000, 0.5F);
  ckpt::Tensor tensor;
  tensor.meta.set_dtype(ckpt::v1::DTYPE_FLOAT32);
  tensor.meta.add_shape(weight.size());
  tensor.data = weight.data();
  ckpt::StateBuilder builder;
  builder.Dict().Key("model").Dict().Key("weight").Tensor(tensor).End().End();
  const auto state = std::move(builder).Build();
  if (!state.ok()) return state.status();
  const auto saved = (*client)->SaveState({.run = "installed", .epoch = 1}, *state);
  if (!saved.ok()) return saved.status();

  const auto restore = (*client)->OpenRestore({.reference = "installed:latest"});
  if (!restore.ok()) return restore.status();
  std::vector<float> restored(weight.size());
  if (const auto status = (*restore)->ReadInto(std::vector<void*>{restored.data()}); !status.ok()) return status;
  if (restored != weight) return absl::InternalError("other bytes came back");

  const auto format = ckpt::FormatOfPath(path);
  if (!format.ok()) return format.status();
  const auto file = ckpt::StateFileWriter::Create(path, *format, (*restore)->nodes(), (*restore)->tensors(), {});
  if (!file.ok()) return file.status();
  if (const auto status = (*restore)->Read(**file); !status.ok()) return status;
  return (*file)->Finish().status();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const absl::Status status = Run(argv[1], argv[2]);
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}
