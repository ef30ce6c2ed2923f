#include "client/cli/progress_bar.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "client/cli/text.h"

namespace ckpt::cli {
namespace {
constexpr std::chrono::milliseconds kInterval{100};
constexpr std::size_t kWidth = 30;
}  // namespace

ProgressBar::ProgressBar(std::string what) : what_(Printable(what)), terminal_(isatty(STDERR_FILENO) != 0) {}

ProgressBar::~ProgressBar() {
  if (shown_ != Clock::time_point()) std::fputs("\r\x1b[K", stderr);
}

void ProgressBar::Show(std::uint64_t done_bytes, std::uint64_t total_bytes) {
  const Clock::time_point now = Clock::now();
  if (!terminal_ || now - shown_ < kInterval) return;
  shown_ = now;
  const double share =
      total_bytes == 0 ? 1 : std::min(1.0, static_cast<double>(done_bytes) / static_cast<double>(total_bytes));
  const auto filled = static_cast<std::size_t>(share * kWidth);
  const double seconds = std::max(1e-3, std::chrono::duration<double>(now - start_).count());
  std::fprintf(stderr, "\r%s [%s%s] %3.0f%%  %s of %s, %s/s\x1b[K", what_.c_str(), std::string(filled, '#').c_str(),
               std::string(kWidth - filled, '.').c_str(), share * 100, HumanBytes(done_bytes).c_str(),
               HumanBytes(total_bytes).c_str(),
               HumanBytes(static_cast<std::uint64_t>(static_cast<double>(done_bytes) / seconds)).c_str());
}

}  // namespace ckpt::cli
