#include "base/glob.h"

#include <fnmatch.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace ckpt {

absl::Status CheckGlob(std::string_view glob) {
  if (glob.size() <= 256 && std::count(glob.begin(), glob.end(), '*') <= 8 && glob.find('\0') == glob.npos)
    return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, "BAD_GLOB",
                   "a glob may have 256 bytes and 8 '*' at most; use several");
}

bool MatchesAnyGlob(const std::string& path, std::span<const std::string> globs) {
  return std::any_of(globs.begin(), globs.end(),
                     [&](const std::string& glob) { return fnmatch(glob.c_str(), path.c_str(), 0) == 0; });
}

}  // namespace ckpt
