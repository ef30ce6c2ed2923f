// A file that is whole or absent.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ckpt::formats {

// Bytes go to a temporary file next to the target, in any order; Finish puts it in the target's place. Destroyed before
// that, it removes the temporary file. Not thread-safe.
class OutputFile {
 public:
  struct Options {
    bool overwrite = false;  // else an existing target is AlreadyExists, and is never lost in a race
  };

  // Overwriting replaces a regular file only; behind a symbolic link, the one that it leads to.
  // Errors: AlreadyExists, NotFound (the folder), PermissionDenied, InvalidArgument (what is there is no file),
  // Internal.
  static absl::StatusOr<std::unique_ptr<OutputFile>> Create(const std::string& path, const Options& options);

  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // Takes the space of that many bytes now, where the file system can. ResourceExhausted when there is too little.
  absl::Status Reserve(std::uint64_t size_bytes);

  // ResourceExhausted when the disk is full.
  absl::Status WriteAt(std::uint64_t offset_bytes, std::string_view bytes);

  // Reads what was written.
  absl::StatusOr<std::string> ReadAt(std::uint64_t offset_bytes, std::size_t size_bytes) const;

  // These bytes will not be read again, and Finish cuts them off: gives their space back where the file system can.
  void Discard(std::uint64_t offset_bytes, std::uint64_t size_bytes);

  // Cuts the file to its size, and makes it durable and visible under its name.
  absl::Status Finish(std::uint64_t size_bytes);

 private:
  OutputFile(std::string path, std::string temporary, Options options, int fd)
      : path_(std::move(path)), temporary_(std::move(temporary)), options_(options), fd_(fd) {}

  const std::string path_;
  const std::string temporary_;
  const Options options_;
  const int fd_;
  bool renamed_ = false;
};

}  // namespace ckpt::formats
