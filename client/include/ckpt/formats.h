// .pth and .safetensors files, both ways. Nothing here runs what a file contains.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ckpt/client.h"
#include "ckpt/state.h"

namespace ckpt {

enum class FileFormat { kPth, kSafetensors };

// By the path's ending, in any case: .pth, .pt, .bin, .ckpt, .pth.tar, .pt.tar are PyTorch's; .safetensors.
// InvalidArgument for another.
absl::StatusOr<FileFormat> FormatOfPath(const std::string& path);

struct ReadFileOptions {
  // Refuse a .pth whose CRC-32s are wrong. Off for files written with torch's own CRC turned off.
  bool check_crc = true;
};

// A file's state: its tensors lie in the mapped file, so it must outlive every use of them.
class StateFile {
 public:
  virtual ~StateFile() = default;
  [[nodiscard]] virtual const State& state() const = 0;
};

// Maps a file and reads its description; tensors' pages are read when they are used and given back by State::release.
// State::check says whether the file was written to meanwhile. Who reads bytes that were cut off meanwhile gets a
// SIGBUS. Errors: NotFound, InvalidArgument (not such a file, or holds what a state cannot: with the path and the
// type), DataLoss (truncated or a wrong CRC).
absl::StatusOr<std::unique_ptr<StateFile>> ReadStateFile(const std::string& path, FileFormat format,
                                                         const ReadFileOptions& options = {});

// Writes a file, its tensors' bytes in any order: through TensorSink::Write, as Restore::Read gives them. The file is
// whole or absent: its bytes are synced before it gets its name, by Finish. One that is given up leaves nothing, even
// if its program is killed; unless the file system has no files without a name: then a temporary one is next to it
// meanwhile.
class StateFileWriter : public TensorSink {
 public:
  struct Options {
    bool overwrite = false;  // else an existing file is AlreadyExists, now and at Finish
  };

  // `nodes` over `tensors`, of which those that are in the tree, or shown by a view that is, are written.
  // Errors: AlreadyExists, InvalidArgument (the format cannot hold it: with the path and the type), ResourceExhausted.
  static absl::StatusOr<std::unique_ptr<StateFileWriter>> Create(const std::string& path, FileFormat format,
                                                                 std::span<const v1::StateNode> nodes,
                                                                 std::span<const v1::Tensor> tensors,
                                                                 const Options& options);

  // Completes, syncs and names the file, syncs its folder, and returns the file's size in bytes.
  virtual absl::StatusOr<std::uint64_t> Finish() = 0;
};

}  // namespace ckpt
