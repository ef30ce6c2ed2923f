// Whether the caller wants a call to end before it is done.
#pragma once

#include <chrono>
#include <functional>

#include "absl/status/status.h"

namespace ckpt::client {

// Asks the caller now and then. Used by one thread.
class Interrupts {
 public:
  // How often the caller is asked; whoever waits waits no longer than this at a time.
  static constexpr std::chrono::milliseconds kEvery{100};

  // `interrupted` (see ConnectOptions) may be empty and must outlive this.
  explicit Interrupts(const std::function<bool()>& interrupted) : interrupted_(interrupted) {}

  // False if nobody is ever asked.
  [[nodiscard]] bool enabled() const { return static_cast<bool>(interrupted_); }

  // Asks, if it is time to. Cancelled INTERRUPTED once the caller has said so.
  absl::Status Check();

  // Waits for so long, asking now and then.
  absl::Status Sleep(std::chrono::milliseconds time);

 private:
  const std::function<bool()>& interrupted_;
  std::chrono::steady_clock::time_point last_{};
  bool said_ = false;
};

}  // namespace ckpt::client
