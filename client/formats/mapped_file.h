// A file mapped into memory, read-only.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace ckpt::formats {

// Thread-safe. The file must not shrink while it is mapped: reading past its new end kills the process (SIGBUS).
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

 private:
  explicit MappedFile(std::string_view bytes) : bytes_(bytes) {}

  const std::string_view bytes_;
};

}  // namespace ckpt::formats
