// A clock that tests move.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "base/clock.h"

namespace ckpt::storage {

// Thread-safe.
class FakeClock final : public Clock {
 public:
  std::int64_t WallMicros() const override { return 1'700'000'000'000'000 + uptime_ms_ * 1000; }
  std::chrono::milliseconds Uptime() const override { return std::chrono::milliseconds(uptime_ms_); }
  void Advance(std::chrono::milliseconds by) { uptime_ms_ += by.count(); }

 private:
  std::atomic<std::int64_t> uptime_ms_{0};
};

}  // namespace ckpt::storage
