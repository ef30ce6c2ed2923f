// How long a client may keep its stream waiting.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>

namespace ckpt::server {

// Thread-safe.
class Patience {
 public:
  // For so long a client may neither say nor take anything.
  explicit Patience(std::chrono::milliseconds limit) : limit_(limit) {}

  // The server stops: from now on only a client that is at work is waited for.
  void RunOut() { stopping_ = true; }

  [[nodiscard]] std::chrono::milliseconds limit() const { return stopping_ ? std::min(limit_, kAtWork) : limit_; }

 private:
  static constexpr std::chrono::milliseconds kAtWork{2000};

  const std::chrono::milliseconds limit_;
  std::atomic<bool> stopping_ = false;
};

}  // namespace ckpt::server
