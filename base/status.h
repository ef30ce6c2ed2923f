// Errors: absl::Status with a machine-readable reason, and the macros that pass them on.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ckpt {

// An error of `code` whose `reason` (a word in docs/errors.md, "RUN_NOT_FOUND") travels with it to the client. The
// message says what happened and what to do.
[[nodiscard]] absl::Status MakeError(absl::StatusCode code, std::string_view reason, std::string_view message);

// The reason given to MakeError, or "" if the status has none.
[[nodiscard]] std::string ReasonOf(const absl::Status& status);

// The same error with "context: " before its message; an OK status stays OK.
[[nodiscard]] absl::Status Annotate(const absl::Status& status, std::string_view context);

// Prints the message with its place and aborts: for invariants that no input can break.
[[noreturn]] void CheckFailed(const char* condition, const char* file, int line, std::string_view message = {});

}  // namespace ckpt

// Returns the expression's status from the enclosing function unless it is OK.
#define CKPT_RETURN_IF_ERROR(expr) CKPT_RETURN_IF_ERROR_INNER(CKPT_CONCAT(ckpt_status_, __COUNTER__), expr)
#define CKPT_RETURN_IF_ERROR_INNER(status, expr)                   \
  do {                                                             \
    if (absl::Status status = (expr); !status.ok()) return status; \
  } while (false)

#define CKPT_CONCAT_INNER(a, b) a##b
#define CKPT_CONCAT(a, b) CKPT_CONCAT_INNER(a, b)

// CKPT_ASSIGN_OR_RETURN(auto x, F()): x from the StatusOr, or return its status.
#define CKPT_ASSIGN_OR_RETURN(lhs, expr) CKPT_ASSIGN_OR_RETURN_INNER(CKPT_CONCAT(ckpt_or_, __COUNTER__), lhs, expr)
#define CKPT_ASSIGN_OR_RETURN_INNER(tmp, lhs, expr) \
  auto tmp = (expr);                                \
  if (!tmp.ok()) return std::move(tmp).status();    \
  lhs = *std::move(tmp)

// Aborts, in release builds too, when the condition is false.
#define CKPT_CHECK(condition)                                              \
  do {                                                                     \
    if (!(condition)) ::ckpt::CheckFailed(#condition, __FILE__, __LINE__); \
  } while (false)

// Aborts when the status is not OK.
#define CKPT_CHECK_OK(expr)                                                    \
  do {                                                                         \
    if (const absl::Status ckpt_status_ = (expr); !ckpt_status_.ok())          \
      ::ckpt::CheckFailed(#expr, __FILE__, __LINE__, ckpt_status_.ToString()); \
  } while (false)
