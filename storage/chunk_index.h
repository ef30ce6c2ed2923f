// Dedup: which records there are and where. Rows of chunks and of manifest records live in two tables that work alike.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/digest.h"
#include "ckpt/v1/storage.pb.h"
#include "storage/kv_engine.h"
#include "storage/pack_store.h"
#include "storage/pack_table.h"
#include "storage/pin_table.h"
#include "storage/session_table.h"

namespace ckpt::storage {

// A record by its content.
struct RecordName {
  bool manifest = false;  // a part or root of a manifest; else a chunk
  Digest digest;

  auto operator<=>(const RecordName&) const = default;

  template <typename H>
  friend H AbslHashValue(H h, const RecordName& name) {
    return H::combine(std::move(h), name.manifest, name.digest);
  }
};

// A record that a batch acks.
struct IndexEntry {
  RecordName name;
  std::optional<RecordLocation> written;  // absent: found in the index before the batch was written
  std::uint32_t raw_length = 0;
  Fingerprint fingerprint;
};

// Where a record was when a stream was told that it may rely on it.
struct RecordPlace {
  PackId pack;
  std::uint32_t ordinal = 0;
};

// A record that a session may rely on.
struct Promise {
  Fingerprint fingerprint;
  std::uint32_t raw_length = 0;
  std::optional<RecordPlace> place;  // absent if it is not known: an earlier stream was told
};

// A batch on its way into the index. The entries' names are distinct.
struct IndexBatch {
  SessionRef session;
  const WrittenBatch* written = nullptr;  // null when all was there already
  std::vector<IndexEntry> entries;
  v1::ProgressRow progress;    // new_bytes is filled in
  std::uint64_t number = 0;    // of the batch in its stream
  StreamPins* pins = nullptr;  // of the stream
};

struct IndexResult {
  std::vector<RecordName> gone;     // were there before and are not any more: no batch was indexed; write them too
  std::vector<RecordPlace> places;  // of the entries, in their order; where some are gone, of no use
  std::uint64_t new_bytes = 0;      // of the entries whose rows are new
};

// Thread-safe.
class ChunkIndex {
 public:
  explicit ChunkIndex(KvEngine& engine) : engine_(engine) {}

  // Pins, durably, the packs of those records that the store has, for the session, which can rely on them until it
  // ends. nullopt for a record that is missing.
  absl::StatusOr<std::vector<std::optional<Promise>>> Pin(const SessionRef& session,
                                                          const std::vector<RecordName>& records, StreamPins& pins);

  // Which of the records the store has now. Promises nothing.
  absl::StatusOr<std::vector<bool>> Has(std::string_view domain, const std::vector<RecordName>& records);

  // Makes batches that were written durable in the catalog, all or none: rows for what is new, pins on the packs of
  // all, each session's progress. Of a record that has a usable row already, that row stays, and its place is the one
  // that is told. The sessions have one domain.
  absl::StatusOr<std::vector<IndexResult>> Index(std::span<IndexBatch* const> batches);
  absl::StatusOr<IndexResult> Index(IndexBatch batch);

  // The record, which was read at this place, is damaged: it counts as missing from now on. The next batch that writes
  // it heals all that use it. Does nothing if the record has another place by now.
  absl::Status Quarantine(std::string_view domain, const RecordName& record, const PackId& pack, std::uint64_t offset);

  // The records' rows, of damaged ones too; NotFound RECORD_MISSING names one that is not there.
  absl::StatusOr<std::vector<v1::ChunkRow>> Locate(std::string_view domain, const std::vector<RecordName>& records);

 private:
  KvEngine& engine_;
};

// The record's key in the catalog.
std::string RecordKey(std::string_view domain, const RecordName& record);

// The pack that a row names.
absl::StatusOr<PackId> PackOfRow(const v1::ChunkRow& row);

// The rows of the records as they are now, without a hold.
absl::StatusOr<std::vector<std::optional<v1::ChunkRow>>> ReadRows(Transaction& txn, std::string_view domain,
                                                                  const std::vector<RecordName>& records);

}  // namespace ckpt::storage
