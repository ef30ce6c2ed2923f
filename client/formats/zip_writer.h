// Writes what is in a zip file besides its entries' bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ckpt::formats {

// Lays out stored entries one after the other, each one's bytes at a multiple of 64 as torch.save does it, and writes
// the headers around them and the directory (ZIP64 where it is needed). The entries' own bytes are somebody else's to
// write, to where AddEntry says, before or after. The same calls give the same layout. Not thread-safe.
class ZipWriter {
 public:
  // Takes bytes of the file's structure.
  using Sink = std::function<absl::Status(std::uint64_t offset_bytes, std::string_view bytes)>;

  // Without a sink only the layout comes out of it.
  explicit ZipWriter(Sink sink);

  struct Entry {
    std::string name;
    std::uint64_t size_bytes = 0;
    std::uint32_t crc32 = 0;  // does not matter without a sink
  };

  // Adds an entry and returns where its bytes begin in the file. Errors: those of the sink.
  absl::StatusOr<std::uint64_t> AddEntry(const Entry& entry);

  // Writes the directory and returns the file's size. Errors: those of the sink.
  absl::StatusOr<std::uint64_t> Finish();

 private:
  absl::Status Write(std::string_view bytes);

  Sink sink_;
  std::uint64_t position_ = 0;
  std::string directory_;
  std::uint64_t entries_ = 0;
};

}  // namespace ckpt::formats
