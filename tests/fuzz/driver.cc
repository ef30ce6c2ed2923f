// Runs a fuzz target without libFuzzer: on every given file and on those of every given folder, and then on random
// mutations of them, so that each change is tried a little by the ordinary tests and with any compiler.
//
//   TARGET [--runs N] [--seconds S] [FILE|FOLDER]...
//
// Mutations end after N of them or S seconds. CKPT_SEED repeats a run; its seed is printed. Each input lies in a file
// of the current folder while it runs: after a crash or a hang that file is the input, to be kept in crashes/.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/oracle.h"

namespace {

namespace fs = std::filesystem;
using Random = std::mt19937_64;

constexpr std::size_t kMaxInput = 1U << 16;

struct Settings {
  std::uint64_t runs = 20'000;
  double seconds = 3;
  std::vector<fs::path> paths = {};
};

// The file that holds the input at hand.
class Trace {
 public:
  explicit Trace(std::string path) : path_(std::move(path)) {
    fd_ = open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd_ < 0) {
      std::perror(path_.c_str());
      std::exit(2);
    }
    std::printf("the input at hand is in %s\n", fs::absolute(path_).c_str());
    std::fflush(stdout);
  }
  // All went well: there is nothing to look at.
  ~Trace() {
    close(fd_);
    unlink(path_.c_str());
  }
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  void Run(const std::string& input) {
    const auto size = static_cast<ssize_t>(input.size());
    if (pwrite(fd_, input.data(), input.size(), 0) != size || ftruncate(fd_, size) != 0) {
      std::perror(path_.c_str());
      std::exit(2);
    }
    // A copy of just this size, so that AddressSanitizer sees a byte read too many.
    const std::vector<std::uint8_t> exact(input.begin(), input.end());
    LLVMFuzzerTestOneInput(exact.data(), exact.size());
  }

 private:
  std::string path_;
  int fd_ = -1;
};

std::string ReadFile(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    std::fprintf(stderr, "cannot read %s\n", path.c_str());
    std::exit(2);
  }
  return {std::istreambuf_iterator<char>(in), {}};
}

// In order of their names, so that a seed means the same everywhere.
std::vector<std::string> ReadAll(const std::vector<fs::path>& paths) {
  std::vector<fs::path> files;
  for (const fs::path& path : paths) {
    if (!fs::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    for (const auto& entry : fs::recursive_directory_iterator(path))
      if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::vector<std::string> inputs;
  for (const fs::path& file : files) inputs.push_back(ReadFile(file));
  return inputs;
}

std::size_t Below(Random& random, std::size_t end) { return end == 0 ? 0 : random() % end; }

// Bytes that parsers stumble over.
std::string Interesting(Random& random) {
  // About a power of two, where lengths and varints change.
  const std::uint64_t power = std::uint64_t{1} << Below(random, 64);
  const std::uint64_t number = power - 1 + Below(random, 3);
  char bytes[sizeof number];
  std::memcpy(bytes, &number, sizeof number);
  return {bytes, std::size_t{1} << Below(random, 4)};
}

void Mutate(std::string& input, const std::vector<std::string>& seeds, Random& random) {
  const std::size_t at = Below(random, input.size() + 1);
  const std::size_t length = Below(random, std::min<std::size_t>(input.size() - at, 64) + 1);
  switch (Below(random, 7)) {
    case 0:
      if (at < input.size()) input[at] = static_cast<char>(input[at] ^ 1 << Below(random, 8));
      break;
    case 1:
      if (at < input.size()) input[at] = static_cast<char>(random());
      break;
    case 2: input.erase(at, length); break;
    case 3: input.insert(at, input.substr(Below(random, input.size() + 1), length)); break;
    case 4: input.insert(at, Interesting(random)); break;
    case 5: {
      const std::string bytes = Interesting(random);
      input.replace(at, bytes.size(), bytes);
      break;
    }
    default: {  // a part of another input
      const std::string& other = seeds[Below(random, seeds.size())];
      const std::size_t from = Below(random, other.size() + 1);
      input.replace(at, length, other, from, Below(random, other.size() - from + 1));
    }
  }
  if (input.size() > kMaxInput) input.resize(kMaxInput);
}

Settings Parse(int argc, char** argv) {
  Settings settings;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--runs" && i + 1 < argc) {
      settings.runs = std::strtoull(argv[++i], nullptr, 10);
    } else if (word == "--seconds" && i + 1 < argc) {
      settings.seconds = std::strtod(argv[++i], nullptr);
    } else {
      settings.paths.emplace_back(word);
    }
  }
  return settings;
}

}  // namespace

int main(int argc, char** argv) {
  const Settings settings = Parse(argc, argv);
  const char* given = std::getenv("CKPT_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device()();
  std::printf("CKPT_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::vector<std::string> seeds = ReadAll(settings.paths);
  const fs::path program = argv[0];
  Trace trace(program.filename().string() + ".input");
  for (const std::string& input : seeds) trace.Run(input);
  const std::size_t replayed = seeds.size();
  if (seeds.empty()) seeds.emplace_back();
  Random random(seed);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(settings.seconds);
  std::uint64_t runs = 0;
  for (; runs < settings.runs && std::chrono::steady_clock::now() < end; ++runs) {
    std::string input = seeds[Below(random, seeds.size())];
    for (std::size_t times = Below(random, 6) + 1; times != 0; --times) Mutate(input, seeds, random);
    trace.Run(input);
  }
  std::printf("%zu inputs replayed, %llu mutations\n", replayed, static_cast<unsigned long long>(runs));
  return 0;
}
