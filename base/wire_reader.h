// Reads protobuf's wire format out of memory in pieces, so that a large field need not be copied to be found.
// https://protobuf.dev/programming-guides/encoding/
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/digest.h"

namespace ckpt {

// A field as it stands on the wire.
struct WireField {
  enum class Type { kVarint, kFixed64, kBytes, kFixed32 };
  std::uint32_t number = 0;
  Type type = Type::kVarint;
  std::uint64_t value = 0;   // kVarint
  std::vector<Bytes> bytes;  // all others: where they are
};

// The pieces together are one message. They outlive the reader and the fields. Not thread-safe.
class WireReader {
 public:
  explicit WireReader(std::span<const Bytes> pieces);

  // The next field in the order of the message; nullopt at the end, or when what follows is no field: then ok() is
  // false.
  std::optional<WireField> Next();

  [[nodiscard]] bool ok() const { return ok_; }

 private:
  std::optional<std::uint64_t> Varint(int max_bytes);
  std::optional<std::vector<Bytes>> Take(std::uint64_t size);

  std::vector<Bytes> pieces_;
  std::size_t piece_ = 0;   // that is being read
  std::uint64_t left_ = 0;  // bytes in all
  bool ok_ = true;
};

// The bytes of the pieces in one string.
std::string Join(std::span<const Bytes> pieces);

// Appends a varint; a field's tag is number << 3 | wire type.
void AppendVarint(std::string& out, std::uint64_t value);

}  // namespace ckpt
