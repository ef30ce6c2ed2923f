#include "client/interrupts.h"

#include <algorithm>
#include <thread>

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

absl::Status Interrupts::Sleep(std::chrono::milliseconds time) {
  for (; time > std::chrono::milliseconds::zero(); time -= kEvery) {
    CKPT_RETURN_IF_ERROR(Check());
    std::this_thread::sleep_for(std::min(time, kEvery));
  }
  return absl::OkStatus();
}

}  // namespace ckpt::client
