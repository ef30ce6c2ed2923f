// The errors that files give.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace ckpt::formats {

// What went wrong when the system call gave `error` (an errno) for `path`: NotFound, AlreadyExists, PermissionDenied,
// ResourceExhausted (no space left, quota), or Internal. `what` is "cannot open" and the like.
absl::Status SystemError(int error, std::string_view what, const std::string& path);

// InvalidArgument: it is not such a file, or one of a kind that is not read.
absl::Status BadFile(std::string_view message);

// DataLoss: it was such a file, and is damaged.
absl::Status DamagedFile(std::string_view message);

// InvalidArgument: a value that a state, or the format, cannot hold. `path` is where it is in the state.
absl::Status UnsupportedValue(std::string_view path, std::string_view type, std::string_view advice);

}  // namespace ckpt::formats
