// Versions of checkpoints: made visible in one transaction, and marked as committed in a pack.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "ckpt/v1/checkpoint.pb.h"
#include "ckpt/v1/storage.pb.h"
#include "storage/chunk_index.h"
#include "storage/kv_engine.h"
#include "storage/pack_store.h"
#include "storage/session_table.h"

namespace ckpt::storage {

// A record that a version is made of, and which component it belongs to; manifest records belong to none.
struct UsedRecord {
  RecordName name;
  std::uint32_t component = 0;            // index into Draft::components; 0 is ""
  std::optional<RecordPlace> place = {};  // where the stream was told that it is; absent if it was not
};

// A version before it has its numbers.
struct Draft {
  v1::Checkpoint checkpoint;            // without version, sequence, create_time
  std::vector<std::string> components;  // [0] is ""
  std::vector<UsedRecord> used;
  // Of a save by several ranks: the parts that it was merged from. The committing rank's is not noted yet.
  std::vector<v1::PartRow> parts;
  RecordLocation fact;  // where its version fact is
  Digest fact_digest;   // SHA-256 of that record's payload
};

// Thread-safe.
class VersionTable {
 public:
  VersionTable(KvEngine& engine, PackStore& packs, const Clock& clock)
      : engine_(engine), packs_(packs), clock_(clock) {}

  // Makes the draft visible as the next version of its epoch, atomically and durably, and ends its session. Turns the
  // session's pins into references.
  // Errors: as HoldSession; FailedPrecondition CHUNK_MISSING names a record that the session was promised and that was
  // found damaged meanwhile, or that lies in a pack without a pin of the session: it has to be sent again; Aborted
  // PARTS_CHANGED: a rank has begun anew meanwhile.
  absl::StatusOr<v1::Checkpoint> Commit(const SessionRef& session, const Draft& draft);

  // The checkpoint that the session committed. NotFound if it was deleted since.
  absl::StatusOr<v1::Checkpoint> CommittedBy(const v1::SessionRow& session);

  // Writes the commit markers that are not in a pack yet: after commits, and at start-up.
  absl::Status WriteMarkers();

 private:
  absl::Status MarkDomain(const std::string& domain, const std::vector<std::pair<std::string, v1::CommitFact>>& facts);

  KvEngine& engine_;
  PackStore& packs_;
  const Clock& clock_;
  Mutex markers_mutex_;  // one at a time writes markers, so that none is written twice
};

}  // namespace ckpt::storage
