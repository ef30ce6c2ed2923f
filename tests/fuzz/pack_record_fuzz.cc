// Headers of packs and of their records, as they are and with a right check sum: a mutation would else get no further.
// First byte: even for a record's, odd for a pack's.
#include <zlib.h>

#include <cstring>
#include <string>

#include "storage/pack_record.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/oracle.h"

namespace {

using namespace ckpt;
using namespace ckpt::storage;
using ckpt::fuzz::Require;

// Where docs/format.md puts the check sums, each over all that is before it.
constexpr std::size_t kRecordCrcAt = 108;
constexpr std::size_t kPackCrcAt = 96;

std::string WithCrc(std::string header, std::size_t at) {
  const auto crc =
      static_cast<std::uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(header.data()), static_cast<uInt>(at)));
  std::memcpy(header.data() + at, &crc, sizeof crc);
  return header;
}

void CheckRecord(const std::string& bytes) {
  const auto header = DecodeRecordHeader(AsBytes(bytes));
  if (!header.ok()) return;
  Record record;
  record.kind = header->kind;
  record.codec = header->codec;
  record.digest = header->digest;
  record.fingerprint = header->fingerprint;
  record.raw_length = header->raw_length;
  record.base = header->base;
  std::string again(kRecordHeaderSize, '\0');
  EncodeRecordHeader(record, header->stored_length, header->ordinal, std::as_writable_bytes(std::span(again)));
  const auto same = DecodeRecordHeader(AsBytes(again));
  Require(same.ok(), "a record's header that was written can be read");
  Require(same->kind == header->kind && same->codec == header->codec && same->raw_length == header->raw_length &&
              same->stored_length == header->stored_length && same->ordinal == header->ordinal &&
              same->digest == header->digest && same->fingerprint == header->fingerprint && same->base == header->base,
          "the same record's header");
}

void CheckPack(const std::string& bytes) {
  const auto header = DecodePackHeader(AsBytes(bytes));
  if (!header.ok()) return;
  std::string again(kPackHeaderSize, '\0');
  EncodePackHeader(header->pack_id, header->domain, std::as_writable_bytes(std::span(again)));
  const auto same = DecodePackHeader(AsBytes(again));
  Require(same.ok() && same->pack_id == header->pack_id && same->domain == header->domain, "the same pack's header");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ckpt::fuzz::Input input(data, size);
  const bool pack = input.Byte() % 2 != 0;
  std::string bytes(input.Rest());
  if (!pack) {
    CheckRecord(bytes);
    if (bytes.size() >= kRecordHeaderSize) CheckRecord(WithCrc(std::move(bytes), kRecordCrcAt));
    return 0;
  }
  CheckPack(bytes);
  bytes.resize(kPackHeaderSize);  // zeros, which an input need not have
  CheckPack(WithCrc(std::move(bytes), kPackCrcAt));
  return 0;
}
