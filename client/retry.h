// When to try again.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <random>

#include "absl/status/status.h"
#include "ckpt/client.h"

namespace ckpt::client {

// Exponential back-off with jitter, until there has been no progress for a given time. Not thread-safe.
class Backoff {
 public:
  using Clock = std::chrono::steady_clock;
  using Millis = std::chrono::milliseconds;

  Backoff(Millis retry_for, Clock::time_point now) : retry_for_(retry_for), last_progress_(now) {}

  // The call got further than ever before: start anew.
  void Progress(Clock::time_point now) {
    last_progress_ = now;
    ceiling_ = kFirst;
  }

  // The server answered, though not with what was wanted: it is not time to give up.
  void Answered(Clock::time_point now) { last_progress_ = now; }

  // How long to wait before the next attempt; nullopt when it is time to give up.
  std::optional<Millis> Next(Clock::time_point now);

 private:
  static constexpr Millis kFirst{50};
  static constexpr Millis kMax{2000};

  const Millis retry_for_;
  Clock::time_point last_progress_;
  Millis ceiling_ = kFirst;
  std::minstd_rand random_{std::random_device{}()};
};

// Makes a call of the server at `connect`'s address, again and again while it fails with Unavailable, or because
// transactions of the server were in each other's way (CONFLICT), until the back-off gives up or the caller interrupts.
// A first call that the server leaves without an answer uses up none of the back-off's time, and a server that serves as
// many as it can is waited for ten times as long: others of one save may be what fills it.
absl::Status Retry(Backoff& backoff, const ConnectOptions& connect, const std::function<absl::Status()>& call);

}  // namespace ckpt::client
