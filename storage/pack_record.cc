#include "storage/pack_record.h"

#include <zlib.h>

#include <cstring>

#include "base/status.h"

namespace ckpt::storage {
namespace {

// Offsets in a record's header; docs/format.md has them as a table.
constexpr std::uint32_t kRecordMagic = 0x31524b43;  // "CKR1"
constexpr std::size_t kKindAt = 4;
constexpr std::size_t kCodecAt = 5;
constexpr std::size_t kOrdinalAt = 8;
constexpr std::size_t kRawLengthAt = 12;
constexpr std::size_t kStoredLengthAt = 16;
constexpr std::size_t kFingerprintAt = 20;
constexpr std::size_t kDigestAt = 36;
constexpr std::size_t kBaseAt = 68;
constexpr std::size_t kRecordCrcAt = 108;

constexpr char kPackMagic[] = "CKPTPACK";
constexpr std::uint32_t kPackFormat = 1;
constexpr std::size_t kPackIdAt = 12;
constexpr std::size_t kPackIdSize = 16;
constexpr std::size_t kDomainLengthAt = 28;
constexpr std::size_t kDomainAt = 32;
constexpr std::size_t kMaxDomain = 64;
constexpr std::size_t kPackCrcAt = kDomainAt + kMaxDomain;

void Put32(std::span<std::byte> out, std::size_t at, std::uint32_t value) {
  for (int i = 0; i < 4; ++i) out[at + static_cast<std::size_t>(i)] = static_cast<std::byte>(value >> 8 * i);
}

std::uint32_t Get32(Bytes in, std::size_t at) {
  std::uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = value << 8 | static_cast<std::uint32_t>(in[at + static_cast<std::size_t>(i)]);
  return value;
}

void PutBytes(std::span<std::byte> out, std::size_t at, std::string_view bytes) {
  std::memcpy(out.data() + at, bytes.data(), bytes.size());
}

std::string_view GetBytes(Bytes in, std::size_t at, std::size_t size) { return AsChars(in.subspan(at, size)); }

std::uint32_t Crc(Bytes bytes) {
  return static_cast<std::uint32_t>(
      crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size())));
}

absl::Status Damaged(std::string_view what) { return MakeError(absl::StatusCode::kDataLoss, "PACK_DAMAGED", what); }

}  // namespace

Record MakeRecord(RecordKind kind, std::span<const Bytes> pieces) {
  Record record;
  record.kind = kind;
  record.digest = Sha256(pieces);
  record.fingerprint = Xxh3(pieces);
  for (const Bytes piece : pieces) record.raw_length += static_cast<std::uint32_t>(piece.size());
  record.pieces = pieces;
  return record;
}

void EncodeRecordHeader(const Record& record, std::uint32_t stored_length, std::uint32_t ordinal,
                        std::span<std::byte> out) {
  std::memset(out.data(), 0, kRecordHeaderSize);
  Put32(out, 0, kRecordMagic);
  out[kKindAt] = static_cast<std::byte>(record.kind);
  out[kCodecAt] = static_cast<std::byte>(record.codec);
  Put32(out, kOrdinalAt, ordinal);
  Put32(out, kRawLengthAt, record.raw_length);
  Put32(out, kStoredLengthAt, stored_length);
  PutBytes(out, kFingerprintAt, record.fingerprint.view());
  PutBytes(out, kDigestAt, record.digest.view());
  PutBytes(out, kBaseAt, record.base.view());
  Put32(out, kRecordCrcAt, Crc(out.first(kRecordCrcAt)));
}

absl::StatusOr<RecordHeader> DecodeRecordHeader(Bytes in) {
  if (in.size() < kRecordHeaderSize) return Damaged("a record's header is cut off");
  if (Get32(in, 0) != kRecordMagic) return Damaged("there is no record");
  if (Get32(in, kRecordCrcAt) != Crc(in.first(kRecordCrcAt))) return Damaged("a record's header is damaged");
  RecordHeader out;
  out.kind = static_cast<RecordKind>(in[kKindAt]);
  out.codec = static_cast<Codec>(in[kCodecAt]);
  out.ordinal = Get32(in, kOrdinalAt);
  out.raw_length = Get32(in, kRawLengthAt);
  out.stored_length = Get32(in, kStoredLengthAt);
  out.fingerprint = *Fingerprint::From(GetBytes(in, kFingerprintAt, Fingerprint::kSize));
  out.digest = *Digest::From(GetBytes(in, kDigestAt, Digest::kSize));
  out.base = *Digest::From(GetBytes(in, kBaseAt, Digest::kSize));
  if (out.kind < RecordKind::kChunk || out.kind > RecordKind::kCommitFact || out.codec != Codec::kRaw ||
      out.stored_length > kMaxRecordPayload || out.raw_length != out.stored_length)
    return Damaged("a record's header has a kind, codec or length that this version does not know");
  return out;
}

void EncodePackHeader(std::string_view pack_id, std::string_view domain, std::span<std::byte> out) {
  CKPT_CHECK(pack_id.size() == kPackIdSize && domain.size() <= kMaxDomain && out.size() == kPackHeaderSize);
  std::memset(out.data(), 0, kPackHeaderSize);
  PutBytes(out, 0, std::string_view(kPackMagic, 8));
  Put32(out, 8, kPackFormat);
  PutBytes(out, kPackIdAt, pack_id);
  Put32(out, kDomainLengthAt, static_cast<std::uint32_t>(domain.size()));
  PutBytes(out, kDomainAt, domain);
  Put32(out, kPackCrcAt, Crc(out.first(kPackCrcAt)));
}

absl::StatusOr<PackHeader> DecodePackHeader(Bytes in) {
  if (in.size() < kPackHeaderSize || GetBytes(in, 0, 8) != std::string_view(kPackMagic, 8))
    return Damaged("this is no pack");
  if (Get32(in, kPackCrcAt) != Crc(in.first(kPackCrcAt))) return Damaged("the pack's header is damaged");
  if (Get32(in, 8) != kPackFormat)
    return MakeError(absl::StatusCode::kUnimplemented, "STORE_TOO_NEW", "the pack was written by a later version");
  const std::uint32_t size = Get32(in, kDomainLengthAt);
  if (size > kMaxDomain) return Damaged("the pack's header is damaged");
  return PackHeader{std::string(GetBytes(in, kPackIdAt, kPackIdSize)), std::string(GetBytes(in, kDomainAt, size))};
}

}  // namespace ckpt::storage
