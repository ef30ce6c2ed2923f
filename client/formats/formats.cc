#include "ckpt/formats.h"

#include <array>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status.h"
#include "client/formats/pth_file.h"
#include "client/formats/pth_writer.h"
#include "client/formats/safetensors_file.h"
#include "client/formats/safetensors_writer.h"

namespace ckpt {

absl::StatusOr<FileFormat> FormatOfPath(const std::string& path) {
  static constexpr auto kPthEndings =
      std::to_array<absl::string_view>({".pth", ".pt", ".bin", ".ckpt", ".pth.tar", ".pt.tar"});
  for (const absl::string_view ending : kPthEndings)
    if (absl::EndsWithIgnoreCase(path, ending)) return FileFormat::kPth;
  if (absl::EndsWithIgnoreCase(path, ".safetensors")) return FileFormat::kSafetensors;
  return MakeError(
      absl::StatusCode::kInvalidArgument, "UNKNOWN_FORMAT",
      absl::StrCat(path, ": its ending is none of .pth, .pt, .bin, .ckpt, .pth.tar, .pt.tar and .safetensors; name the "
                         "format (--format)"));
}

absl::StatusOr<std::unique_ptr<StateFile>> ReadStateFile(const std::string& path, FileFormat format,
                                                         const ReadFileOptions& options) {
  if (format == FileFormat::kPth) return formats::ReadPthFile(path, options);
  return formats::ReadSafetensorsFile(path);
}

absl::StatusOr<std::unique_ptr<StateFileWriter>> StateFileWriter::Create(const std::string& path, FileFormat format,
                                                                         std::span<const v1::StateNode> nodes,
                                                                         std::span<const v1::Tensor> tensors,
                                                                         const Options& options) {
  if (format == FileFormat::kPth) return formats::CreatePthWriter(path, nodes, tensors, options);
  return formats::CreateSafetensorsWriter(path, nodes, tensors, options);
}

}  // namespace ckpt
