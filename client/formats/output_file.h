// A file that is whole or absent.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ckpt::formats {

// Bytes go to a file of their own in the target's folder, in any order; Finish puts it in the target's place. Destroyed
// before that, or killed, it leaves nothing; where the file system has no files without a name, one who is killed
// leaves a temporary file ".ckpt-….tmp". Not thread-safe.
class OutputFile {
 public:
  struct Options {
    bool overwrite = false;  // else an existing target is AlreadyExists, and is never lost in a race
    bool nameless = true;    // false: as on a file system that has no files without a name
  };

  // Overwriting replaces a regular file only; behind a symbolic link, the one that it leads to. The new file has the
  // old one's permission bits from the beginning.
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
      : path_(std::move(path)), options_(options), fd_(fd), temporary_(std::move(temporary)) {}

  // Gives the file its name.
  absl::Status TakeName();

  const std::string path_;
  const Options options_;
  const int fd_;
  std::string temporary_;  // the file's name until it has its own; "" if it has none yet
};

}  // namespace ckpt::formats
