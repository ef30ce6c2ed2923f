#include <string>

#include "ckpt/status.h"
#include "client/cli/commands.h"

namespace ckpt::cli {

int ExitCode(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  for (const char* const of_the_command_line : {"BAD_ADDRESS", "BAD_GLOB", "BAD_NAME", "BAD_REFERENCE"})
    if (reason == of_the_command_line) return 2;
  if (reason == "FILE_NOT_PERMITTED") return 1;  // by this machine; a server did not refuse anybody
  switch (status.code()) {
    case absl::StatusCode::kOk: return 0;
    case absl::StatusCode::kNotFound: return 3;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kFailedPrecondition: return 4;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated: return 5;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded: return 6;
    case absl::StatusCode::kDataLoss: return 7;
    default: return 1;
  }
}

}  // namespace ckpt::cli
