#include "storage/pack_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <vector>

#include "storage/status_matchers_fixture.h"

namespace ckpt::storage {
namespace {

using std::string_literals::operator""s;

std::string FromHex(std::string_view hex) {
  std::string out;
  for (std::size_t i = 0; i + 1 < hex.size();) {
    if (hex[i] == ' ') {
      ++i;
      continue;
    }
    out.push_back(static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
    i += 2;
  }
  return out;
}

std::string Encode(const Record& record, std::uint32_t stored_length, std::uint32_t ordinal) {
  std::string out(kRecordHeaderSize, '\xaa');
  EncodeRecordHeader(record, stored_length, ordinal, std::as_writable_bytes(std::span(out)));
  return out;
}

std::string EncodePack(std::string_view id, std::string_view domain) {
  std::string out(kPackHeaderSize, '\xaa');
  EncodePackHeader(id, domain, std::as_writable_bytes(std::span(out)));
  return out;
}

// CRC-32 of zlib, bit by bit: the format's, not the code's.
std::string Crc(std::string_view bytes) {
  std::uint32_t crc = 0xffffffff;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int i = 0; i < 8; ++i) crc = crc >> 1 ^ (crc % 2 == 1 ? 0xedb88320 : 0);
  }
  crc = ~crc;
  std::string out;
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>(crc >> shift));
  return out;
}

// A header with these bytes at a place, and a check sum that fits.
std::string RecordWith(std::size_t at, std::string_view bytes) {
  const Bytes piece = AsBytes("abc");
  std::string out = Encode(MakeRecord(RecordKind::kChunk, {&piece, 1}), 3, 0);
  out.replace(at, bytes.size(), bytes);
  return out.replace(108, 4, Crc(out.substr(0, 108)));
}
std::string PackWith(std::size_t at, std::string_view bytes) {
  std::string out = EncodePack("0123456789abcdef", "d");
  out.replace(at, bytes.size(), bytes);
  return out.replace(96, 4, Crc(out.substr(0, 96)));
}

absl::Status Decoded(std::string_view header) { return DecodeRecordHeader(AsBytes(header)).status(); }
absl::Status DecodedPack(std::string_view header) { return DecodePackHeader(AsBytes(header)).status(); }

const auto kDamaged = IsError(absl::StatusCode::kDataLoss, "PACK_DAMAGED");

// Written out by hand from docs/format.md.
TEST(PackRecord, ARecordsHeaderHasTheBytesOfTheFormat) {
  const std::string expected = FromHex(
      "434b5231"                                                          // CKR1
      "02 00 0000"                                                        // ManifestPart, raw
      "04030201 03000000 03000000"                                        // ordinal, raw and stored length
      "06b05ab6733a618578af5f94892f3950"                                  // XXH3-128 of abc, big-endian
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  // SHA-256 of abc
      "0000000000000000000000000000000000000000000000000000000000000000"  // no base
      "0000000000000000"
      "3610dadd");  // CRC-32
  const std::array<Bytes, 2> pieces = {AsBytes("a"), AsBytes("bc")};
  EXPECT_EQ(ToHex(Encode(MakeRecord(RecordKind::kManifestPart, pieces), 3, 0x01020304)), ToHex(expected));
}

TEST(PackRecord, APacksHeaderHasTheBytesOfTheFormat) {
  std::string expected = FromHex(
      "434b50545041434b"                  // CKPTPACK
      "01000000"                          // format
      "000102030405060708090a0b0c0d0eff"  // id
      "06000000 7465616d2d31");           // team-1
  expected.resize(96);
  expected += FromHex("85772e29");  // CRC-32
  expected.resize(4096);
  EXPECT_EQ(ToHex(EncodePack(FromHex("000102030405060708090a0b0c0d0eff"), "team-1")), ToHex(expected));
}

TEST(PackRecord, ARecordsHeaderComesBack) {
  for (const RecordKind kind : {RecordKind::kChunk, RecordKind::kManifestPart, RecordKind::kManifestRoot,
                                RecordKind::kVersionFact, RecordKind::kCommitFact}) {
    for (const std::uint32_t length : {0U, 1U, kMaxRecordPayload}) {
      Record record;
      record.kind = kind;
      record.digest = Sha256("digest");
      record.fingerprint = Xxh3("fingerprint");
      record.base = Sha256("base");
      record.raw_length = length;
      const auto header = DecodeRecordHeader(AsBytes(Encode(record, length, ~length)));
      ASSERT_THAT(header.status(), IsOk());
      EXPECT_EQ(header->kind, kind);
      EXPECT_EQ(header->codec, Codec::kRaw);
      EXPECT_EQ(header->raw_length, length);
      EXPECT_EQ(header->stored_length, length);
      EXPECT_EQ(header->ordinal, ~length);
      EXPECT_EQ(header->digest, record.digest);
      EXPECT_EQ(header->fingerprint, record.fingerprint);
      EXPECT_EQ(header->base, record.base);
    }
  }
}

TEST(PackRecord, APacksHeaderComesBack) {
  for (const std::string& domain : {"d"s, std::string(64, 'x')}) {
    const auto header = DecodePackHeader(AsBytes(EncodePack("0123456789abcdef", domain)));
    ASSERT_THAT(header.status(), IsOk());
    EXPECT_EQ(header->pack_id, "0123456789abcdef");
    EXPECT_EQ(header->domain, domain);
  }
}

TEST(PackRecord, EveryFlippedBitOfARecordsHeaderIsRefused) {
  const std::string good = RecordWith(0, "");
  ASSERT_THAT(Decoded(good), IsOk());
  for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ 1 << bit % 8);
    EXPECT_THAT(Decoded(bad), kDamaged) << bit;
  }
}

TEST(PackRecord, EveryFlippedBitOfAPacksHeaderIsRefused) {
  const std::string good = PackWith(0, "");
  ASSERT_THAT(DecodedPack(good), IsOk());
  for (std::size_t bit = 0; bit < std::size_t{8} * 100; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ 1 << bit % 8);
    EXPECT_THAT(DecodedPack(bad), kDamaged) << bit;
  }
}

TEST(PackRecord, WhatIsCutOffIsRefused) {
  const std::string record = RecordWith(0, "");
  for (std::size_t size = 0; size < record.size(); ++size) EXPECT_THAT(Decoded(record.substr(0, size)), kDamaged);
  const std::string pack = PackWith(0, "");
  for (const std::size_t size : {0, 7, 8, 99, 100, 4095}) EXPECT_THAT(DecodedPack(pack.substr(0, size)), kDamaged);
  EXPECT_THAT(Decoded(std::string(kRecordHeaderSize, '\0')), kDamaged);
  EXPECT_THAT(DecodedPack(std::string(kPackHeaderSize, '\0')), kDamaged);
}

TEST(PackRecord, FieldsThatNothingWritesAreRefusedThoughTheCheckSumFits) {
  EXPECT_THAT(Decoded(RecordWith(4, "\x05")), IsOk());
  EXPECT_THAT(Decoded(RecordWith(4, "\0"s)), kDamaged);
  EXPECT_THAT(Decoded(RecordWith(4, "\x06")), kDamaged);
  EXPECT_THAT(Decoded(RecordWith(5, "\x01")), kDamaged);
  EXPECT_THAT(Decoded(RecordWith(12, "\x01\0\0\x01\x01\0\0\x01"s)), kDamaged);  // 16 MiB and 1, both
  EXPECT_THAT(Decoded(RecordWith(12, "\xff\xff\xff\xff"s)), kDamaged);
  EXPECT_THAT(Decoded(RecordWith(16, "\xff\xff\xff\xff"s)), kDamaged);
  EXPECT_THAT(DecodedPack(PackWith(28, "\x40"s)), IsOk());
  EXPECT_THAT(DecodedPack(PackWith(28, "\x41"s)), kDamaged);
  EXPECT_THAT(DecodedPack(PackWith(28, "\xff\xff\xff\xff"s)), kDamaged);
}

TEST(PackRecord, RawPayloadIsAsLongAsItIsStored) {
  EXPECT_THAT(Decoded(RecordWith(12, "\x04")), kDamaged);
  EXPECT_THAT(Decoded(RecordWith(16, "\x02")), kDamaged);
}

TEST(PackRecord, APackOfALaterFormatIsTooNew) {
  for (const std::string& format : {"\x02"s, "\0\0\0\x01"s})
    EXPECT_THAT(DecodedPack(PackWith(8, format)), IsError(absl::StatusCode::kUnimplemented, "STORE_TOO_NEW"));
}

}  // namespace
}  // namespace ckpt::storage
