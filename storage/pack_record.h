// The bytes of packs: a header for the pack, then records one after the other. docs/format.md specifies them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/digest.h"

namespace ckpt::storage {

// Values are on disk: never renumber.
enum class RecordKind : std::uint8_t {
  kChunk = 1,         // a chunk of a tensor
  kManifestPart = 2,  // v1.ManifestPart
  kManifestRoot = 3,  // v1.ManifestRoot
  kVersionFact = 4,   // v1.VersionFact
  kCommitFact = 5,    // v1.CommitFact
};

// Values are on disk: never renumber.
enum class Codec : std::uint8_t { kRaw = 0 };

// A record to write. The pieces, which the caller keeps alive, together are the payload as stored.
struct Record {
  RecordKind kind = RecordKind::kChunk;
  Codec codec = Codec::kRaw;
  Digest digest;            // SHA-256 of the raw payload
  Fingerprint fingerprint;  // XXH3-128 of the raw payload
  std::uint32_t raw_length = 0;
  Digest base;  // chunk that the codec needs; zeros if none
  std::span<const Bytes> pieces;
};

// The record of these pieces, uncoded: digest, fingerprint and length are computed.
Record MakeRecord(RecordKind kind, std::span<const Bytes> pieces);

// A record's header as read back.
struct RecordHeader {
  RecordKind kind;
  Codec codec;
  std::uint32_t raw_length;
  std::uint32_t stored_length;
  std::uint32_t ordinal;
  Digest digest;
  Fingerprint fingerprint;
  Digest base;
};

inline constexpr std::size_t kPackHeaderSize = 4096;
inline constexpr std::size_t kRecordHeaderSize = 112;
inline constexpr std::uint32_t kMaxRecordPayload = 16U << 20;

// Writes the header of a record whose payload has `stored_length` bytes into `out`, kRecordHeaderSize bytes.
void EncodeRecordHeader(const Record& record, std::uint32_t stored_length, std::uint32_t ordinal,
                        std::span<std::byte> out);

// DataLoss when the magic, the check sum, or a field is not right.
absl::StatusOr<RecordHeader> DecodeRecordHeader(Bytes in);

// The pack's own header: its id and domain. `out` has kPackHeaderSize bytes.
void EncodePackHeader(std::string_view pack_id, std::string_view domain, std::span<std::byte> out);

struct PackHeader {
  std::string pack_id;  // 16 bytes
  std::string domain;
};
// DataLoss when the magic, the check sum, or a field is not right; Unimplemented for a later format.
absl::StatusOr<PackHeader> DecodePackHeader(Bytes in);

}  // namespace ckpt::storage
