// What every fuzz target has: the entry point that libFuzzer and driver.cc call, and how it says that a promise of the
// code was broken.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace ckpt::fuzz {

// Ends the process, in a way that counts as a crash, unless the promise holds.
inline void Require(bool holds, const char* promise) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", promise);
  __builtin_trap();
}

}  // namespace ckpt::fuzz
