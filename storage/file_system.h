// Folders that survive power loss, and the system's errors as ours.
#pragma once

#include <filesystem>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ckpt::storage {

// "WHAT PATH: errno's text": ResourceExhausted DISK_FULL when space or quota is used up, else Internal IO_ERROR.
absl::Status SystemError(std::string_view what, const std::filesystem::path& path, int error);

// Whether the open file is still the one of this name: not if it was moved, removed or replaced. Errors: SystemError's,
// when that cannot be known.
absl::StatusOr<bool> HasName(int fd, const std::filesystem::path& path);

// After OK the names in the folder survive power loss.
absl::Status SyncFolder(const std::filesystem::path& path);

// Makes the folder, and those above it that are missing; after OK it survives power loss, whoever has made it. A folder
// that was there, below one that may not be read, is left to whoever made it.
absl::Status MakeFolder(const std::filesystem::path& path);

}  // namespace ckpt::storage
