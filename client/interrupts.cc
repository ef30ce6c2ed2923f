#include "client/interrupts.h"

#include "base/status.h"

namespace ckpt::client {

absl::Status Interrupts::Check() {
  if (!enabled()) return absl::OkStatus();
  const auto now = std::chrono::steady_clock::now();
  if (!said_ && now - last_ >= kEvery) {
    last_ = now;
    said_ = interrupted_();
  }
  return said_ ? MakeError(absl::StatusCode::kCancelled, "INTERRUPTED", "interrupted by the caller") : absl::OkStatus();
}

}  // namespace ckpt::client
