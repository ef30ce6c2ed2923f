// What tests say of a status.
#pragma once

#include <gmock/gmock.h>

#include "base/status.h"

namespace ckpt::storage {

// An error with this reason, or with this code and reason.
MATCHER_P(HasReason, reason, "") { return ReasonOf(arg) == reason; }
MATCHER_P2(IsError, code, reason, "") {
  *result_listener << arg.ToString();
  return arg.code() == code && ReasonOf(arg) == reason;
}
MATCHER(IsOk, "") {
  *result_listener << arg.ToString();
  return arg.ok();
}

}  // namespace ckpt::storage
