// A bar on standard error while bytes move, when that is a terminal.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace ckpt::cli {

// Shows nothing unless standard error is a terminal. Not thread-safe.
class ProgressBar {
 public:
  explicit ProgressBar(std::string what);
  ~ProgressBar();  // clears the line

  void Show(std::uint64_t done_bytes, std::uint64_t total_bytes);

 private:
  using Clock = std::chrono::steady_clock;
  const std::string what_;
  const bool terminal_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point shown_{};
};

}  // namespace ckpt::cli
