// A checkpoint's description as a hostile server sends it: RestoreResponses, each behind its length in two bytes. What
// the reader takes must be safe to restore from, and to write into files.
#include <string>
#include <vector>

#include "ckpt/formats.h"
#include "client/manifest.h"
#include "client/tensor_region.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/oracle.h"
#include "tests/fuzz/parse_message.h"
#include "tests/fuzz/scratch_folder.h"

namespace {

using ckpt::FileFormat;
using ckpt::client::Manifest;
using ckpt::client::TensorRegion;
using ckpt::fuzz::Require;

// Files of these sizes are written at once.
constexpr std::uint64_t kMaxFileBytes = 1U << 20;

std::uint64_t TouchChunks(const Manifest& manifest) {
  std::uint64_t total = 0;
  for (std::uint64_t ordinal = 0; ordinal < manifest.layout->chunk_count(); ++ordinal) {
    const auto place = manifest.layout->At(ordinal);
    Require(place.tensor < manifest.tensors.size(), "a chunk is of a tensor");
    const auto in_box = manifest.layout->InBox(place);
    const auto range = in_box.range;
    Require(range.size_bytes != 0 && range.offset_bytes + range.size_bytes <= manifest.size_bytes[place.tensor],
            "a chunk lies in its tensor");
    total += manifest.fingerprint(place).bytes[0];
    const ckpt::v1::Tensor& tensor = manifest.tensors[place.tensor];
    const auto stays = [&](const TensorRegion::Run& run) {
      Require(run.size != 0 && run.from >= range.offset_bytes &&
                  run.from + run.size <= range.offset_bytes + range.size_bytes && run.to >= 0 &&
                  static_cast<std::uint64_t>(run.to) + run.size <= manifest.size_bytes[place.tensor],
              "its bytes go into the tensor");
      return absl::OkStatus();
    };
    (void)TensorRegion::Whole(tensor).ForEachRun(tensor.boxes(static_cast<int>(in_box.box)), range, stays);
  }
  return total;
}

void WriteFile(const Manifest& manifest, FileFormat format) {
  static const ckpt::fuzz::ScratchFolder folder;
  auto writer = ckpt::StateFileWriter::Create(folder.path() / "out", format, manifest.nodes, manifest.tensors,
                                              {.overwrite = true});
  if (!writer.ok()) return;
  for (std::size_t i = 0; i < manifest.tensors.size(); ++i) {
    if (manifest.tensors[i].has_view_of()) continue;
    const std::vector<std::byte> bytes(manifest.size_bytes[i]);
    Require((*writer)->Write(i, 0, bytes).ok(), "a tensor's bytes can be written");
  }
  Require((*writer)->Finish().ok(), "a file of all bytes can be finished");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ckpt::fuzz::Input input(data, size);
  ckpt::client::ManifestReader reader;
  while (!input.empty() && !reader.complete()) {
    ckpt::v1::RestoreResponse message;
    const std::string_view piece = input.Piece();
    if (!ckpt::fuzz::ParseMessage(piece, message)) return 0;
    if (!reader.Take(std::move(message)).ok()) return 0;
  }
  if (!reader.complete()) return 0;
  const Manifest& manifest = reader.manifest();
  TouchChunks(manifest);
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < manifest.tensors.size(); ++i)
    if (__builtin_add_overflow(total, manifest.size_bytes[i], &total) || total > kMaxFileBytes) return 0;
  WriteFile(manifest, FileFormat::kPth);
  WriteFile(manifest, FileFormat::kSafetensors);
  return 0;
}
