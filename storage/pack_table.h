// The packs' rows: which packs there are, how much of each counts, and whether it may be used.
#pragma once

#include <set>
#include <string>

#include "absl/container/node_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ckpt/v1/storage.pb.h"
#include "storage/kv_engine.h"
#include "storage/pack_store.h"

namespace ckpt::storage {

// Thread-safe.
class PackTable final : public PackRegistry {
 public:
  explicit PackTable(KvEngine& engine) : engine_(engine) {}

  absl::Status Announce(const PackId& pack, std::string_view domain) override;
  absl::Status Sealed(const PackId& pack) override;
  absl::Status Lost(const PackId& pack) override;

  // Somebody who reads has found the pack's file missing, or to end before a record: then it is lost. True if it counts
  // as lost now: not while it is open, as its writer finds that.
  absl::StatusOr<bool> FoundShort(const PackId& pack);

  // At start-up: seals every pack that a crash left open at the length that its rows reach, and quarantines those whose
  // file is shorter than that, so that nothing new relies on them, for as long as it is.
  absl::Status Recover(const PackStore& packs);

 private:
  KvEngine& engine_;
};

// True if records of the pack count: it is LIVE, and not quarantined.
bool IsUsable(const v1::PackRow& pack);

// The packs that a transaction works with, each held shared from its first use on.
class HeldPacks {
 public:
  explicit HeldPacks(Transaction& txn) : txn_(txn) {}

  // Holds them all: at once, which is faster than one by one.
  absl::Status HoldAll(const std::set<PackId>& packs);

  // As IsUsable.
  absl::StatusOr<bool> Usable(const PackId& pack);

  // Makes the pack LIVE with the first of its rows, and notes how far they reach.
  absl::Status Indexed(const PackId& pack, std::uint64_t end);

  // Holds the pack exclusive instead, and notes that a row that names it changes: its record is found damaged, or
  // moves.
  absl::Status NoteRowChange(const PackId& pack);

  // The pack's row; null if the pack is not held. Without `rows_changed` a row that named the pack before it was held
  // still says the same.
  [[nodiscard]] const v1::PackRow* Held(const PackId& pack) const;

 private:
  absl::StatusOr<v1::PackRow*> Row(const PackId& pack, Hold hold);

  Transaction& txn_;
  absl::node_hash_map<PackId, v1::PackRow> rows_;
};

}  // namespace ckpt::storage
