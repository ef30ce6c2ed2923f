// A .safetensors file: the length, the JSON header, the tensors' places. The header alone as well, written again.
#include <algorithm>
#include <string>
#include <string_view>

#include "client/formats/safetensors_header.h"
#include "tests/fuzz/file_fuzz.h"
#include "tests/fuzz/oracle.h"

namespace {

using ckpt::formats::SafetensorsHeader;
using ckpt::fuzz::Require;

void CheckHeader(std::string_view file) {
  const auto header = ckpt::formats::ParseSafetensorsHeader(file);
  if (!header.ok()) return;
  const auto text = ckpt::formats::FormatSafetensorsHeader(*header);
  Require(text.ok(), "a header that was read can be written");
  const std::string again_file = *text + std::string(file.substr(header->size_bytes));
  const auto again = ckpt::formats::ParseSafetensorsHeader(again_file);
  Require(again.ok(), "a header that was written can be read");
  Require(again->has_metadata == header->has_metadata && again->metadata == header->metadata, "the same metadata");
  Require(std::equal(header->entries.begin(), header->entries.end(), again->entries.begin(), again->entries.end(),
                     [](const auto& a, const auto& b) {
                       return a.name == b.name && a.dtype == b.dtype && a.shape == b.shape && a.begin == b.begin &&
                              a.end == b.end;
                     }),
          "the same tensors");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  CheckHeader({reinterpret_cast<const char*>(data), size});
  ckpt::fuzz::ReadAsFile(data, size, ckpt::FileFormat::kSafetensors);
  return 0;
}
