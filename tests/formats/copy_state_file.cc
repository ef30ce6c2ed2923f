// copy_state_file [--no-crc] [--component NAME]... IN OUT: reads a file and writes what it holds to another, its
// tensors' bytes in pieces in random order (CKPT_SEED), some of them twice and cut differently, as a restore may give
// them. Prints the most memory that it had, in MiB: 0 where that says nothing. For tests.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "base/data_type.h"
#include "ckpt/formats.h"

namespace {

struct Piece {
  std::uint64_t tensor;
  std::uint64_t offset;
  std::uint64_t size;
};

// What Linux counted for this program alone: what getrusage says includes the program that started it.
long PeakMib() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return 0;  // a sanitizer's memory is not ours
#endif
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::atol(line.c_str() + 6) / 1024;
  return 0;
}

absl::Status Copy(const std::string& in, const std::string& out, const ckpt::ReadFileOptions& options,
                  const std::vector<std::string>& components, std::uint64_t seed) {
  const auto from = ckpt::FormatOfPath(in);
  if (!from.ok()) return from.status();
  const auto to = ckpt::FormatOfPath(out);
  if (!to.ok()) return to.status();
  const auto file = ckpt::ReadStateFile(in, *from, options);
  if (!file.ok()) return file.status();
  const ckpt::State& state = (*file)->state();
  const auto nodes = ckpt::SelectNodes(state.nodes, components, {});
  if (!nodes.ok()) return nodes.status();
  std::vector<ckpt::v1::Tensor> tensors;
  for (const ckpt::Tensor& tensor : state.tensors) tensors.push_back(tensor.meta);
  const auto writer = ckpt::StateFileWriter::Create(out, *to, *nodes, tensors, {.overwrite = true});
  if (!writer.ok()) return writer.status();
  std::mt19937_64 random(seed);
  std::vector<Piece> pieces;
  for (std::uint64_t i = 0; i < tensors.size(); ++i) {
    if (state.tensors[i].data == nullptr) continue;
    const std::uint64_t size = *ckpt::SizeBytes(tensors[i]);
    for (std::uint64_t at = 0; at < size;) {
      const std::uint64_t length =
          std::min(size - at, size > (1U << 20) ? std::uint64_t{1} << 20 : random() % 1000 + 1);
      pieces.push_back({i, at, length});
      if (random() % 20 == 0) pieces.push_back({i, at, length - random() % length});
      at += length;
    }
  }
  std::shuffle(pieces.begin(), pieces.end(), random);
  for (const Piece& piece : pieces) {
    const auto* data = static_cast<const std::byte*>(state.tensors[piece.tensor].data) + piece.offset;
    const absl::Status written = (*writer)->Write(piece.tensor, piece.offset, {data, piece.size});
    if (!written.ok()) return written;
    if (state.release != nullptr) state.release(data, piece.size);
  }
  return (*writer)->Finish().status();
}

}  // namespace

int main(int argc, char** argv) {
  ckpt::ReadFileOptions options;
  std::vector<std::string> components;
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--no-crc") {
      options.check_crc = false;
    } else if (word == "--component" && i + 1 < argc) {
      components.emplace_back(argv[++i]);
    } else {
      files.push_back(word);
    }
  }
  if (files.size() != 2) return 2;
  const char* seed = std::getenv("CKPT_SEED");
  const absl::Status status =
      Copy(files[0], files[1], options, components, seed == nullptr ? 1 : std::strtoull(seed, nullptr, 10));
  std::printf("%ld\n", PeakMib());
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}
