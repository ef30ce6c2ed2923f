// Counts what a program copies in memory: preloaded (LD_PRELOAD), it stands before memcpy and memmove, and at the end
// writes into the file that COUNT_COPIES names how many bytes calls of 1 KiB and more have copied. Sees what libraries
// copy too; not what the compiler copies without a call, which is a few bytes each, and not the kernel's copies between
// a program and its sockets and files.
#include <dlfcn.h>

#include <atomic>
#include <cstddef>
#include <cstdio>
#include <cstdlib>

namespace {

constexpr std::size_t kLeast = 1024;

using Copy = void* (*)(void*, const void*, std::size_t);
std::atomic<unsigned long long> copied{0};
std::atomic<Copy> real{nullptr};  // memmove, which does for both

void* Counted(void* to, const void* from, std::size_t size) {
  if (size >= kLeast) copied.fetch_add(size, std::memory_order_relaxed);
  if (const Copy copy = real.load(std::memory_order_relaxed); copy != nullptr) return copy(to, from, size);
  // While the program is being loaded. Volatile: else the compiler makes a memmove of it.
  auto* const out = static_cast<volatile char*>(to);
  const auto* const in = static_cast<const volatile char*>(from);
  const bool up = to <= from;
  for (std::size_t i = 0; i < size; ++i) out[up ? i : size - 1 - i] = in[up ? i : size - 1 - i];
  return to;
}

__attribute__((constructor)) void Find() { real = reinterpret_cast<Copy>(dlsym(RTLD_NEXT, "memmove")); }

__attribute__((destructor)) void Report() {
  const char* const path = std::getenv("COUNT_COPIES");
  if (path == nullptr) return;
  const unsigned long long total = copied;
  if (std::FILE* const file = std::fopen(path, "w"); file != nullptr) {
    std::fprintf(file, "%llu\n", total);
    std::fclose(file);
  }
}

}  // namespace

// NOLINTBEGIN(bugprone-reserved-identifier): the C library's own names
extern "C" {
__attribute__((visibility("default"))) void* memcpy(void* to, const void* from, std::size_t size) {
  return Counted(to, from, size);
}
__attribute__((visibility("default"))) void* memmove(void* to, const void* from, std::size_t size) {
  return Counted(to, from, size);
}
__attribute__((visibility("default"))) void* __memcpy_chk(void* to, const void* from, std::size_t size, std::size_t) {
  return Counted(to, from, size);
}
__attribute__((visibility("default"))) void* __memmove_chk(void* to, const void* from, std::size_t size, std::size_t) {
  return Counted(to, from, size);
}
}
// NOLINTEND(bugprone-reserved-identifier)
