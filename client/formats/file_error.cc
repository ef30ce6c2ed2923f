#include "client/formats/file_error.h"

#include <cerrno>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/utf8.h"

namespace ckpt::formats {
namespace {

// Names that come from a file may be of any length and hold anything.
std::string Shown(std::string_view text) {
  constexpr std::size_t kLongest = 200;
  std::string shown = PrintableUtf8(text.substr(0, kLongest));
  if (text.size() > kLongest) shown += "…";
  return shown;
}

}  // namespace

absl::Status SystemError(int error, std::string_view what, const std::string& path) {
  const std::string message = absl::StrCat(std::string(what), " ", path, ": ", std::generic_category().message(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR: return MakeError(absl::StatusCode::kNotFound, "FILE_NOT_FOUND", message);
    case EEXIST: return MakeError(absl::StatusCode::kAlreadyExists, "FILE_EXISTS", message);
    case EACCES:
    case EPERM:
    case EROFS: return MakeError(absl::StatusCode::kPermissionDenied, "FILE_NOT_PERMITTED", message);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return MakeError(absl::StatusCode::kResourceExhausted, "FILE_TOO_LARGE",
                       absl::StrCat(message, "; free some space and try again"));
    default: return MakeError(absl::StatusCode::kInternal, "FILE_ERROR", message);
  }
}

absl::Status BadFile(std::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, "BAD_FILE", message);
}

absl::Status DamagedFile(std::string_view message) {
  return MakeError(absl::StatusCode::kDataLoss, "FILE_DAMAGED", message);
}

absl::Status UnsupportedValue(std::string_view path, std::string_view type, std::string_view advice) {
  return MakeError(
      absl::StatusCode::kInvalidArgument, "UNSUPPORTED_VALUE",
      absl::StrCat(path.empty() ? "the whole state" : Shown(path), ": ", Shown(type), "; ", std::string(advice)));
}

}  // namespace ckpt::formats
