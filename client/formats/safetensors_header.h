// The header of a .safetensors file: 8 bytes of length (little-endian), then JSON; the tensors' bytes follow.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ckpt/v1/state.pb.h"

namespace ckpt::formats {

struct SafetensorsEntry {
  std::string name;
  std::string path = {};  // in the state that is written: what errors name
  v1::DType dtype = v1::DTYPE_UNSPECIFIED;
  std::vector<std::uint64_t> shape = {};
  std::uint64_t begin = 0;  // of its bytes, counted from the end of the header
  std::uint64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;                      // in the header's order
  std::vector<std::pair<std::string, std::string>> metadata;  // "__metadata__", in the header's order
  bool has_metadata = false;
  std::uint64_t size_bytes = 0;  // with the length: where the tensors' bytes begin
};

// Parses and checks the beginning of a file of `file` bytes: as the safetensors library does, each tensor's bytes must
// be as many as its shape says, and together they must be the rest of the file, without holes and overlaps. Errors:
// InvalidArgument, DataLoss (truncated).
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view file);

// The header as bytes, a multiple of 8. The entries' bytes must be as ParseSafetensorsHeader wants them.
// InvalidArgument for a dtype that the format does not have.
absl::StatusOr<std::string> FormatSafetensorsHeader(const SafetensorsHeader& header);

// The format's name of a type: "BF16"; "" if it has none.
std::string_view SafetensorsDTypeName(v1::DType dtype);

}  // namespace ckpt::formats
