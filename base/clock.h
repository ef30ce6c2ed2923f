// Time as the store sees it, so that tests can move it.
#pragma once

#include <chrono>
#include <cstdint>

namespace ckpt {

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;

  // Microseconds since 1970, for what people read. May jump.
  virtual std::int64_t WallMicros() const = 0;

  // Time since some fixed moment; never goes back. Leases count in it.
  virtual std::chrono::milliseconds Uptime() const = 0;

  // The machine's clocks. Lives for ever.
  static const Clock& System();
};

}  // namespace ckpt
