// The keys of the catalog's rows. docs/format.md has the table. The letters are no order of locks: where transactions
// take theirs in different orders, the engine finds the deadlock and one of them runs again.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/digest.h"
#include "storage/pack_store.h"

namespace ckpt::storage {

// A save attempt's name: 16 random bytes.
using SessionId = ByteString<struct SessionIdTag, 16>;

// What references to packs name a version by.
struct VersionId {
  std::uint64_t run_id = 0;
  std::uint64_t sequence = 0;
};

namespace keys {

std::string Store();
std::string Domain(std::string_view domain);
std::string Attempt(std::string_view domain, std::string_view attempt_key);
std::string Session(const SessionId& session);
std::string Sessions();  // prefix of all
// What one rank's streams of a session wrote, in this order.
std::string Progress(const SessionId& session, std::uint32_t rank, std::uint64_t fence, std::uint64_t batch);
std::string ProgressOf(const SessionId& session);                      // prefix
std::string ProgressOf(const SessionId& session, std::uint32_t rank);  // prefix
std::string Part(const SessionId& session, std::uint32_t rank);
std::string PartsOf(const SessionId& session);  // prefix
std::string RunIds();                           // the counter
std::string Run(std::string_view domain, std::string_view run);
std::string Runs(std::string_view domain);  // prefix
std::string EpochVersions(std::uint64_t run_id, std::int64_t epoch);
std::string Checkpoint(std::uint64_t run_id, std::int64_t epoch, std::uint64_t version);
std::string CheckpointsOfEpoch(std::uint64_t run_id, std::int64_t epoch);  // prefix
std::string CheckpointsOf(std::uint64_t run_id);                           // prefix
std::string Sequence(const VersionId& version);
std::string Chunk(std::string_view domain, const Digest& digest);
std::string Manifest(std::string_view domain, const Digest& digest);  // a part's or root's record
std::string Pack(const PackId& pack);
std::string Packs();  // prefix
std::string PackLength(const PackId& pack);
std::string Pins(const SessionId& session, const Digest& packs);  // the SHA-256 of their ids
std::string PinsOfSession(const SessionId& session);              // prefix
std::string AllPins();                                            // prefix
std::string Reference(const PackId& pack, const VersionId& version, std::string_view component);
std::string ReferencesOfPack(const PackId& pack);  // prefix
std::string VersionPack(const VersionId& version, const PackId& pack);
std::string PacksOfVersion(const VersionId& version);  // prefix
std::string PendingMarker(const VersionId& version);
std::string PendingMarkers();  // prefix

// The parts of a key, read back. DataLoss when it is no such key.
absl::StatusOr<PackId> PackOf(std::string_view pack_key);               // Pack
absl::StatusOr<SessionId> SessionOf(std::string_view session_key);      // Session
absl::StatusOr<std::uint32_t> RankOf(std::string_view part_key);        // Part
absl::StatusOr<SessionId> PinningSessionOf(std::string_view pins_key);  // Pins
struct ReferenceKey {
  PackId pack;
  VersionId version;
  std::string component;
};
absl::StatusOr<ReferenceKey> ParseReference(std::string_view key);

}  // namespace keys
}  // namespace ckpt::storage
