#include "client/formats/safetensors_file.h"

#include <utility>

#include "base/status.h"
#include "client/formats/mapped_file.h"
#include "client/formats/safetensors_header.h"
#include "client/formats/tensor_role.h"

namespace ckpt::formats {
namespace {

class SafetensorsFile : public StateFile {
 public:
  explicit SafetensorsFile(State state) : state_(std::move(state)) {}
  [[nodiscard]] const State& state() const override { return state_; }

 private:
  const State state_;
};

absl::StatusOr<std::unique_ptr<StateFile>> Read(std::shared_ptr<const MappedFile> file) {
  CKPT_ASSIGN_OR_RETURN(const SafetensorsHeader header, ParseSafetensorsHeader(file->bytes()));
  StateBuilder builder;
  builder.Open(header.has_metadata ? v1::NODE_KIND_ORDERED_DICT : v1::NODE_KIND_DICT);
  for (const SafetensorsEntry& entry : header.entries) {
    Tensor tensor;
    tensor.meta.set_dtype(entry.dtype);
    tensor.meta.mutable_shape()->Add(entry.shape.begin(), entry.shape.end());
    tensor.meta.set_role(RoleInModule(entry.name));
    if (entry.end != entry.begin) tensor.data = file->bytes().data() + header.size_bytes + entry.begin;
    builder.Key(entry.name).Tensor(tensor);
  }
  if (header.has_metadata) {
    builder.Attributes().Key("__metadata__").Dict();
    for (const auto& [key, value] : header.metadata) builder.Key(key).Str(value);
    builder.End();
  }
  CKPT_ASSIGN_OR_RETURN(State state, std::move(builder.End()).Build());
  // Shared with the state, whose copies may call these after the file is gone.
  state.release = [file](const void* data, std::size_t size) { file->Release(data, size); };
  state.check = [mapped = std::move(file)] { return mapped->CheckUnchanged(); };
  return std::make_unique<SafetensorsFile>(std::move(state));
}

}  // namespace

absl::StatusOr<std::unique_ptr<StateFile>> ReadSafetensorsFile(const std::string& path) {
  CKPT_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  auto state = Read(std::move(file));
  if (!state.ok()) return Annotate(state.status(), path);
  return state;
}

}  // namespace ckpt::formats
