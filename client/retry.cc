#include "client/retry.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "client/interrupts.h"

namespace ckpt::client {
namespace {

constexpr int kWhileFull = 10;

}  // namespace

std::optional<Backoff::Millis> Backoff::Next(Clock::time_point now) {
  const auto left = std::chrono::duration_cast<Millis>(last_progress_ + retry_for_ - now);
  if (left <= Millis::zero()) return std::nullopt;
  // Between half of the ceiling and all of it, so that clients that lost one server do not come back in step.
  const auto half = ceiling_.count() / 2;
  const Millis wait(half + std::uniform_int_distribution<Millis::rep>(0, half)(random_));
  ceiling_ = std::min(ceiling_ * 2, kMax);
  return std::min(wait, left);
}

absl::Status Retry(Backoff& backoff, const ConnectOptions& connect, const std::function<absl::Status()>& call) {
  Interrupts interrupts(connect.interrupted);
  bool was_silent = false;
  const auto begun = Backoff::Clock::now();
  for (;;) {
    absl::Status status = call();
    if (!absl::IsUnavailable(status) && ReasonOf(status) != "CONFLICT") return status;
    if (ReasonOf(status) == "SERVER_SILENT" && !std::exchange(was_silent, true))
      backoff.Progress(Backoff::Clock::now());
    if (ReasonOf(status) == "TOO_MANY_STREAMS" && Backoff::Clock::now() - begun < kWhileFull * connect.retry_for)
      backoff.Answered(Backoff::Clock::now());
    if (const auto wait = backoff.Next(Backoff::Clock::now()); wait.has_value()) {
      CKPT_RETURN_IF_ERROR(interrupts.Sleep(*wait));
      continue;
    }
    if (ReasonOf(status) != "SERVER_UNREACHABLE") return status;  // it is there, and says what is wrong
    return MakeError(
        absl::StatusCode::kUnavailable, "SERVER_UNREACHABLE",
        absl::StrCat("cannot reach a ckptd at ", connect.address, "; is it running there? (", status.message(), ")"));
  }
}

}  // namespace ckpt::client
