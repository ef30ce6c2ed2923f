#include "base/parallel.h"

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

namespace ckpt {

void ParallelFor(std::size_t count, absl::FunctionRef<void(std::size_t)> body, std::size_t least_threads) {
  std::atomic<std::size_t> next = 0;
  const auto work = [&] {
    for (std::size_t i = next++; i < count; i = next++) body(i);
  };
  const std::size_t wanted = std::min(count, std::max<std::size_t>(least_threads, std::thread::hardware_concurrency()));
  std::vector<std::thread> others;
  try {
    while (others.size() + 1 < wanted) others.emplace_back(work);
  } catch (const std::system_error&) {
    // No more threads are to be had: those that are there do it.
  }
  work();
  for (std::thread& other : others) other.join();
}

}  // namespace ckpt
