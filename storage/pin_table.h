// Pins: the packs that open sessions rely on. A row has those that a have or a batch adds to its stream's.
#pragma once

#include <map>
#include <set>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "storage/keys.h"
#include "storage/kv_engine.h"
#include "storage/pack_store.h"

namespace ckpt::storage {

// The packs that one stream has pinned, durably. As pins last until the session ends, it need not pin them again: so
// what it pins grows with the packs, not with what it asks. Thread-safe.
class StreamPins {
 public:
  // Those of the packs that are not pinned yet.
  [[nodiscard]] std::set<PackId> NewOf(const std::set<PackId>& packs) const;
  // After the transaction that pins them has committed.
  void Add(const std::set<PackId>& packs);

 private:
  mutable Mutex mutex_;
  absl::flat_hash_set<PackId> pinned_ CKPT_GUARDED_BY(mutex_);
};

// Pins the packs for the session, until it ends, in a kSync transaction. The caller holds the packs' rows at least
// shared.
absl::Status PutPins(Transaction& txn, const SessionId& session, const std::set<PackId>& packs);

// The packs that the session pins. Unless it has ended, those that are found stay; others may come.
absl::StatusOr<std::set<PackId>> PinnedPacks(Transaction& txn, const SessionId& session);

// The sessions that pin any of the packs, and which. The caller holds their rows exclusive. Reads the pins of all open
// sessions.
absl::StatusOr<std::map<SessionId, std::set<PackId>>> PinnedBySession(Transaction& txn, const std::set<PackId>& packs);

// Deletes the session's pins, in the transaction that ends it: the caller holds its row exclusive, and those in `held`
// at least shared. Holds all packs that it pins shared.
absl::Status DropPins(Transaction& txn, const SessionId& session, std::set<PackId> held);

}  // namespace ckpt::storage
