// The entries of a zip file that lies in memory.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ckpt::formats {

struct ZipEntry {
  std::string name;
  std::string_view bytes = {};  // in the file, as they are there
  std::uint32_t crc32 = 0;      // of the content, as the directory says
  bool compressed = false;
};

// The entries in the directory's order. Entries must not be encrypted, must lie apart within the file and have names of
// their own.
// Errors: InvalidArgument (no zip file, or one that is not like that), DataLoss (truncated, a directory that
// contradicts the file).
absl::StatusOr<std::vector<ZipEntry>> ReadZipDirectory(std::string_view file);

}  // namespace ckpt::formats
