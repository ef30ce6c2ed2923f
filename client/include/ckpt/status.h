// What errors of this library carry besides their code and message.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace ckpt {

// The machine-readable reason of an error ("RUN_NOT_FOUND"; docs/errors.md lists them), or "".
[[nodiscard]] std::string ReasonOf(const absl::Status& status);

// An error with a reason, as this library makes them.
[[nodiscard]] absl::Status MakeError(absl::StatusCode code, std::string_view reason, std::string_view message);

}  // namespace ckpt
