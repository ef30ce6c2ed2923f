// What errors of this library carry besides their code and message.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace ckpt {

// The machine-readable reason of an error ("RUN_NOT_FOUND"; docs/errors.md lists them), or "".
[[nodiscard]] std::string ReasonOf(const absl::Status& status);

}  // namespace ckpt
