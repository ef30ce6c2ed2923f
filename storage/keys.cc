#include "storage/keys.h"

#include <bit>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace ckpt::storage::keys {
namespace {

enum Table : char {
  kStore = 'A',
  kDomain = 'B',
  kAttempt = 'C',
  kSession = 'D',
  kProgress = 'E',
  kRun = 'F',
  kRunIds = 'G',
  kEpochVersions = 'H',
  kCheckpoint = 'I',
  kSequence = 'J',
  kChunk = 'K',
  kManifest = 'L',
  kPack = 'M',
  kPackLength = 'N',
  kReference = 'Q',
  kVersionPack = 'R',
  kPendingMarker = 'S',
  kPart = 'T',
  kPins = 'U',
  // O and P had pins once.
};

// Builds a key. Numbers are big-endian, so that they sort; a text ends with a NUL, which no name has.
class Key {
 public:
  explicit Key(Table table) : key_(1, table) {}
  Key& Number(std::uint64_t value) {
    for (int shift = 56; shift >= 0; shift -= 8) key_.push_back(static_cast<char>(value >> shift));
    return *this;
  }
  // Signed numbers sort too: the sign bit is turned over.
  Key& Epoch(std::int64_t value) { return Number(std::bit_cast<std::uint64_t>(value) ^ (std::uint64_t{1} << 63)); }
  Key& Text(std::string_view text) {
    key_.append(text);
    key_.push_back('\0');
    return *this;
  }
  Key& Raw(std::string_view bytes) {
    key_.append(bytes);
    return *this;
  }
  std::string Take() { return std::move(key_); }

 private:
  std::string key_;
};

std::uint64_t ReadNumber(std::string_view bytes) {
  std::uint64_t value = 0;
  for (const char c : bytes.substr(0, 8)) value = value << 8 | static_cast<unsigned char>(c);
  return value;
}

absl::Status Malformed(std::string_view key) {
  return MakeError(absl::StatusCode::kDataLoss, "CATALOG_DAMAGED",
                   absl::StrCat("the catalog has a malformed key: ", ToHex(key.substr(0, 64))));
}

template <typename Id>
absl::StatusOr<Id> IdAt(std::string_view key, Table table, std::size_t offset, std::size_t size) {
  if (key.size() != size || key[0] != table) return Malformed(key);
  return *Id::From(key.substr(offset, Id::kSize));
}

}  // namespace

std::string Store() { return Key(kStore).Take(); }
std::string Domain(std::string_view domain) { return Key(kDomain).Text(domain).Take(); }
std::string Attempt(std::string_view domain, std::string_view attempt_key) {
  return Key(kAttempt).Text(domain).Raw(attempt_key).Take();
}
std::string Session(const SessionId& session) { return Key(kSession).Raw(session.view()).Take(); }
std::string Sessions() { return Key(kSession).Take(); }
std::string Progress(const SessionId& session, std::uint32_t rank, std::uint64_t fence, std::uint64_t batch) {
  return Key(kProgress).Raw(session.view()).Number(rank).Number(fence).Number(batch).Take();
}
std::string ProgressOf(const SessionId& session, std::uint32_t rank) {
  return Key(kProgress).Raw(session.view()).Number(rank).Take();
}
std::string ProgressOf(const SessionId& session) { return Key(kProgress).Raw(session.view()).Take(); }
std::string Part(const SessionId& session, std::uint32_t rank) {
  return Key(kPart).Raw(session.view()).Number(rank).Take();
}
std::string PartsOf(const SessionId& session) { return Key(kPart).Raw(session.view()).Take(); }
std::string RunIds() { return Key(kRunIds).Take(); }
std::string Run(std::string_view domain, std::string_view run) { return Key(kRun).Text(domain).Text(run).Take(); }
std::string Runs(std::string_view domain) { return Key(kRun).Text(domain).Take(); }
std::string EpochVersions(std::uint64_t run_id, std::int64_t epoch) {
  return Key(kEpochVersions).Number(run_id).Epoch(epoch).Take();
}
std::string Checkpoint(std::uint64_t run_id, std::int64_t epoch, std::uint64_t version) {
  return Key(kCheckpoint).Number(run_id).Epoch(epoch).Number(version).Take();
}
std::string CheckpointsOfEpoch(std::uint64_t run_id, std::int64_t epoch) {
  return Key(kCheckpoint).Number(run_id).Epoch(epoch).Take();
}
std::string CheckpointsOf(std::uint64_t run_id) { return Key(kCheckpoint).Number(run_id).Take(); }
std::string Sequence(const VersionId& version) {
  return Key(kSequence).Number(version.run_id).Number(version.sequence).Take();
}
std::string Chunk(std::string_view domain, const Digest& digest) {
  return Key(kChunk).Text(domain).Raw(digest.view()).Take();
}
std::string Manifest(std::string_view domain, const Digest& digest) {
  return Key(kManifest).Text(domain).Raw(digest.view()).Take();
}
std::string Pack(const PackId& pack) { return Key(kPack).Raw(pack.view()).Take(); }
std::string Packs() { return Key(kPack).Take(); }
std::string PackLength(const PackId& pack) { return Key(kPackLength).Raw(pack.view()).Take(); }
std::string Pins(const SessionId& session, const Digest& packs) {
  return Key(kPins).Raw(session.view()).Raw(packs.view()).Take();
}
std::string PinsOfSession(const SessionId& session) { return Key(kPins).Raw(session.view()).Take(); }
std::string AllPins() { return Key(kPins).Take(); }
std::string Reference(const PackId& pack, const VersionId& version, std::string_view component) {
  return Key(kReference).Raw(pack.view()).Number(version.run_id).Number(version.sequence).Raw(component).Take();
}
std::string ReferencesOfPack(const PackId& pack) { return Key(kReference).Raw(pack.view()).Take(); }
std::string VersionPack(const VersionId& version, const PackId& pack) {
  return Key(kVersionPack).Number(version.run_id).Number(version.sequence).Raw(pack.view()).Take();
}
std::string PacksOfVersion(const VersionId& version) {
  return Key(kVersionPack).Number(version.run_id).Number(version.sequence).Take();
}
std::string PendingMarker(const VersionId& version) {
  return Key(kPendingMarker).Number(version.run_id).Number(version.sequence).Take();
}
std::string PendingMarkers() { return Key(kPendingMarker).Take(); }

absl::StatusOr<PackId> PackOf(std::string_view key) { return IdAt<PackId>(key, kPack, 1, 1 + PackId::kSize); }
absl::StatusOr<SessionId> SessionOf(std::string_view key) {
  return IdAt<SessionId>(key, kSession, 1, 1 + SessionId::kSize);
}
absl::StatusOr<std::uint32_t> RankOf(std::string_view key) {
  constexpr std::size_t kFixed = 1 + SessionId::kSize;
  if (key.size() != kFixed + 8 || key[0] != kPart) return Malformed(key);
  return static_cast<std::uint32_t>(ReadNumber(key.substr(kFixed)));
}
absl::StatusOr<SessionId> PinningSessionOf(std::string_view key) {
  return IdAt<SessionId>(key, kPins, 1, 1 + SessionId::kSize + Digest::kSize);
}

absl::StatusOr<ReferenceKey> ParseReference(std::string_view key) {
  constexpr std::size_t kFixed = 1 + PackId::kSize + 16;
  if (key.size() < kFixed || key[0] != kReference) return Malformed(key);
  return ReferenceKey{*PackId::From(key.substr(1, PackId::kSize)),
                      {ReadNumber(key.substr(1 + PackId::kSize)), ReadNumber(key.substr(1 + PackId::kSize + 8))},
                      std::string(key.substr(kFixed))};
}

}  // namespace ckpt::storage::keys
