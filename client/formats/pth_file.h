// Reads a .pth file, which torch.save writes since 1.6: a zip file with a pickle and an entry for each storage.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "ckpt/formats.h"

namespace ckpt::formats {

// As ReadStateFile of ckpt/formats.h.
absl::StatusOr<std::unique_ptr<StateFile>> ReadPthFile(const std::string& path, const ReadFileOptions& options);

}  // namespace ckpt::formats
