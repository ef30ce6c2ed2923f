// A file mapped into memory, read-only.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ckpt::formats {

// Thread-safe. Who reads past the new end of a file that shrank meanwhile gets a SIGBUS.
class MappedFile {
 public:
  // Errors: NotFound, PermissionDenied, InvalidArgument (no regular file).
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);

  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  [[nodiscard]] std::string_view bytes() const { return bytes_; }

  // Gives the pages of this range back to the system; they are read again when they are used. A range that is not in
  // the mapping is left alone.
  void Release(const void* data, std::size_t size) const;

  // Aborted FILE_CHANGED when the file was written to since it was opened, even if its time was put back, or when its
  // rights were changed, which looks the same. One that has another name now, or that another file has taken the name
  // of, is as it was.
  absl::Status CheckUnchanged() const;

 private:
  MappedFile(const std::string& path, int fd, const struct stat& opened, std::string_view bytes);

  const std::string path_;
  const int fd_;
  const struct stat opened_;
  const std::string name_;  // when it was opened
  const std::string_view bytes_;
};

}  // namespace ckpt::formats
