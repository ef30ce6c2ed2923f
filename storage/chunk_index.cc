#include "storage/chunk_index.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "storage/keys.h"
#include "storage/pin_table.h"
#include "storage/record_bitmap.h"
#include "storage/rows.h"

namespace ckpt::storage {
namespace {

// True when the row may be relied on: its pack, which is held shared from now on, is usable and so is the record.
absl::StatusOr<bool> Usable(HeldPacks& packs, const v1::ChunkRow& row) {
  if (row.quarantined()) return false;
  CKPT_ASSIGN_OR_RETURN(const PackId pack, PackOfRow(row));
  return packs.Usable(pack);
}

// Deletes the version's row for the pack if no component of it uses the pack any more. The caller holds the pack's row
// exclusive.
absl::Status DropUnusedPack(Transaction& txn, const VersionId& version, const PackId& pack) {
  CKPT_ASSIGN_OR_RETURN(const auto left, txn.Scan(keys::Reference(pack, version, ""), "", 1));
  return left.empty() ? txn.Delete(keys::VersionPack(version, pack)) : absl::OkStatus();
}

// Where the records of a pack are now that were quarantined there, by their ordinal of then, and have been written
// anew.
using Healed = std::map<std::uint32_t, RecordPlace>;

// Moves the references to such records, in all versions, to where these are now. The caller holds the pack's row
// exclusive.
absl::Status MoveReferences(Transaction& txn, const PackId& pack, const Healed& healed) {
  std::vector<std::pair<std::string, v1::ReferenceRow>> users;
  CKPT_RETURN_IF_ERROR(ForEachRow(
      txn, keys::ReferencesOfPack(pack), [&](const std::string& key, const std::string& value) -> absl::Status {
        CKPT_ASSIGN_OR_RETURN(v1::ReferenceRow row, ParseRow<v1::ReferenceRow>(key, value));
        if (std::any_of(healed.begin(), healed.end(),
                        [&](const auto& one) { return HasRecord(row.records(), one.first); }))
          users.emplace_back(key, std::move(row));
        return absl::OkStatus();
      }));
  for (auto& [key, row] : users) {
    CKPT_ASSIGN_OR_RETURN(const keys::ReferenceKey user, keys::ParseReference(key));
    std::map<PackId, std::vector<std::uint32_t>> moved;
    for (const auto& [ordinal, place] : healed) {
      if (!HasRecord(row.records(), ordinal)) continue;
      RemoveRecord(*row.mutable_records(), ordinal);
      moved[place.pack].push_back(place.ordinal);
    }
    if (row.records().empty()) {
      CKPT_RETURN_IF_ERROR(txn.Delete(key));
      CKPT_RETURN_IF_ERROR(DropUnusedPack(txn, user.version, pack));
    } else {
      CKPT_RETURN_IF_ERROR(PutRow(txn, key, row));
    }
    for (const auto& [fresh, ordinals] : moved) {
      const std::string fresh_key = keys::Reference(fresh, user.version, user.component);
      CKPT_ASSIGN_OR_RETURN(auto there, GetRow<v1::ReferenceRow>(txn, fresh_key, Hold::kExclusive));
      if (!there.has_value()) there.emplace();
      for (const std::uint32_t ordinal : ordinals) AddRecord(*there->mutable_records(), ordinal);
      CKPT_RETURN_IF_ERROR(PutRow(txn, fresh_key, *there));
      CKPT_RETURN_IF_ERROR(txn.Put(keys::VersionPack(user.version, fresh), ""));
    }
  }
  return absl::OkStatus();
}

// What relied on the old copies of records relies on the new ones: `healed` is by old pack. Whoever has a pin on an old
// pack may mean such a record, so the new packs of its records get them all.
absl::Status Heal(Transaction& txn, HeldPacks& packs, const std::map<PackId, Healed>& healed) {
  if (healed.empty()) return absl::OkStatus();
  std::set<PackId> old_packs;
  std::map<PackId, std::set<PackId>> new_packs;  // by old pack
  for (const auto& [pack, records] : healed) {
    CKPT_RETURN_IF_ERROR(packs.NoteRowChange(pack));
    old_packs.insert(pack);
    for (const auto& [ordinal, place] : records) new_packs[pack].insert(place.pack);
  }
  CKPT_ASSIGN_OR_RETURN(const auto pinned, PinnedBySession(txn, old_packs));
  for (const auto& [session, pins] : pinned)
    for (const PackId& pack : pins) CKPT_RETURN_IF_ERROR(PutPins(txn, session, new_packs[pack]));
  for (const auto& [pack, records] : healed) CKPT_RETURN_IF_ERROR(MoveReferences(txn, pack, records));
  return absl::OkStatus();
}

v1::ChunkRow RowOf(const IndexEntry& entry) {
  v1::ChunkRow row;
  row.set_pack(std::string(entry.written->pack.view()));
  row.set_offset(entry.written->offset);
  row.set_stored_length(entry.written->stored_length);
  row.set_raw_length(entry.raw_length);
  row.set_ordinal(entry.written->ordinal);
  row.set_fingerprint(std::string(entry.fingerprint.view()));
  return row;
}

// Indexes one entry. Where its record is then; nullopt for one that was not written and is gone. One that was written
// again, because its row was quarantined, is added to `healed`.
absl::StatusOr<std::optional<RecordPlace>> IndexEntryRow(Transaction& txn, HeldPacks& packs,
                                                         std::map<PackId, Healed>& healed, const std::string& key,
                                                         const IndexEntry& entry, std::uint64_t& new_bytes) {
  const Hold hold = entry.written.has_value() ? Hold::kExclusive : Hold::kShared;
  CKPT_ASSIGN_OR_RETURN(const auto row, GetRow<v1::ChunkRow>(txn, key, hold));
  bool usable = false;
  if (row.has_value()) {
    CKPT_ASSIGN_OR_RETURN(usable, Usable(packs, *row));
  }
  if (usable) {  // it was there, or another session's row was first: that one counts
    CKPT_ASSIGN_OR_RETURN(const PackId winner, PackOfRow(*row));
    return RecordPlace{winner, row->ordinal()};
  }
  if (!entry.written.has_value()) return std::nullopt;
  const RecordPlace place{entry.written->pack, entry.written->ordinal};
  if (row.has_value()) {
    CKPT_ASSIGN_OR_RETURN(const PackId old, PackOfRow(*row));
    healed[old].emplace(row->ordinal(), place);
  }
  CKPT_RETURN_IF_ERROR(PutRow(txn, key, RowOf(entry)));
  new_bytes += entry.written->stored_length;
  return place;
}

}  // namespace

std::string RecordKey(std::string_view domain, const RecordName& record) {
  return record.manifest ? keys::Manifest(domain, record.digest) : keys::Chunk(domain, record.digest);
}

absl::StatusOr<PackId> PackOfRow(const v1::ChunkRow& row) {
  const auto pack = PackId::From(row.pack());
  if (!pack.has_value())
    return MakeError(absl::StatusCode::kDataLoss, "CATALOG_DAMAGED", "a record's row names no pack");
  return *pack;
}

absl::StatusOr<std::vector<std::optional<v1::ChunkRow>>> ReadRows(Transaction& txn, std::string_view domain,
                                                                  const std::vector<RecordName>& records) {
  std::vector<std::string> row_keys;
  row_keys.reserve(records.size());
  for (const RecordName& record : records) row_keys.push_back(RecordKey(domain, record));
  CKPT_ASSIGN_OR_RETURN(const auto values, txn.MultiGet(row_keys, Hold::kNone));
  std::vector<std::optional<v1::ChunkRow>> rows(records.size());
  for (std::size_t i = 0; i < records.size(); ++i) {
    if (!values[i].has_value()) continue;
    CKPT_ASSIGN_OR_RETURN(rows[i], ParseRow<v1::ChunkRow>(row_keys[i], *values[i]));
  }
  return rows;
}

absl::StatusOr<std::vector<std::optional<Promise>>> ChunkIndex::Pin(const SessionRef& session,
                                                                    const std::vector<RecordName>& records,
                                                                    StreamPins& pins) {
  std::vector<std::optional<Promise>> promises;
  std::set<PackId> pin;
  const auto body = [&](Transaction& txn) -> absl::Status {
    promises.assign(records.size(), std::nullopt);
    CKPT_RETURN_IF_ERROR(HoldSession(txn, session, Hold::kShared).status());
    HeldPacks packs(txn);
    CKPT_ASSIGN_OR_RETURN(auto rows, ReadRows(txn, session.domain, records));
    std::set<PackId> wanted;
    for (const auto& row : rows) {
      if (!row.has_value()) continue;
      CKPT_ASSIGN_OR_RETURN(const PackId pack, PackOfRow(*row));
      wanted.insert(pack);
    }
    CKPT_RETURN_IF_ERROR(packs.HoldAll(wanted));
    // Now that the packs are held no row that names them changes, and one that was read before still holds if its pack
    // has no note of a change.
    std::vector<std::size_t> moving;
    std::vector<RecordName> again;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (!rows[i].has_value()) continue;
      CKPT_ASSIGN_OR_RETURN(const PackId pack, PackOfRow(*rows[i]));
      if (!packs.Held(pack)->rows_changed()) continue;
      moving.push_back(i);
      again.push_back(records[i]);
    }
    CKPT_ASSIGN_OR_RETURN(auto now, ReadRows(txn, session.domain, again));
    for (std::size_t i = 0; i < now.size(); ++i) rows[moving[i]] = std::move(now[i]);
    pin.clear();
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (!rows[i].has_value()) continue;
      CKPT_ASSIGN_OR_RETURN(const PackId pack, PackOfRow(*rows[i]));
      const v1::PackRow* const held = packs.Held(pack);
      if (held == nullptr) continue;  // moved between the two reads: as good as missing
      if (rows[i]->quarantined() || !IsUsable(*held)) continue;
      const auto fingerprint = Fingerprint::From(rows[i]->fingerprint());
      if (!fingerprint.has_value())
        return MakeError(absl::StatusCode::kDataLoss, "CATALOG_DAMAGED", "a record's row has no fingerprint");
      promises[i] = Promise{*fingerprint, rows[i]->raw_length(), RecordPlace{pack, rows[i]->ordinal()}};
      pin.insert(pack);
    }
    return PutPins(txn, session.id, pins.NewOf(pin));
  };
  CKPT_RETURN_IF_ERROR(engine_.Transact(KvEngine::Durability::kSync, body));
  pins.Add(pin);
  return promises;
}

absl::StatusOr<std::vector<bool>> ChunkIndex::Has(std::string_view domain, const std::vector<RecordName>& records) {
  std::vector<bool> has;
  CKPT_RETURN_IF_ERROR(engine_.Transact(KvEngine::Durability::kLazy, [&](Transaction& txn) -> absl::Status {
    has.assign(records.size(), false);
    CKPT_ASSIGN_OR_RETURN(const auto rows, ReadRows(txn, domain, records));
    HeldPacks packs(txn);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (!rows[i].has_value()) continue;
      CKPT_ASSIGN_OR_RETURN(const bool usable, Usable(packs, *rows[i]));
      has[i] = usable;
    }
    return absl::OkStatus();
  }));
  return has;
}

absl::StatusOr<std::vector<IndexResult>> ChunkIndex::Index(std::span<IndexBatch* const> batches) {
  struct Entry {
    std::string key;
    std::size_t batch;
    std::size_t number;  // in its batch
  };
  std::vector<Entry> sorted;
  for (std::size_t i = 0; i < batches.size(); ++i) {
    CKPT_CHECK(batches[i]->session.domain == batches[0]->session.domain);
    CKPT_CHECK(batches[i]->pins != nullptr);
    for (std::size_t j = 0; j < batches[i]->entries.size(); ++j)
      sorted.push_back({RecordKey(batches[i]->session.domain, batches[i]->entries[j].name), i, j});
  }
  std::sort(sorted.begin(), sorted.end(),
            [](const Entry& a, const Entry& b) { return std::tie(a.key, a.batch) < std::tie(b.key, b.batch); });
  std::vector<IndexResult> results;
  std::vector<std::set<PackId>> pins(batches.size());
  absl::Status gone = absl::OutOfRangeError("gone");
  const absl::Status status = engine_.Transact(KvEngine::Durability::kSync, [&](Transaction& txn) -> absl::Status {
    results.assign(batches.size(), {});
    pins.assign(batches.size(), {});
    HeldPacks packs(txn);
    std::map<PackId, Healed> healed;  // by old pack
    for (const IndexBatch* const batch : batches)
      CKPT_RETURN_IF_ERROR(HoldSession(txn, batch->session, Hold::kShared).status());
    for (std::size_t i = 0; i < batches.size(); ++i) {
      const WrittenBatch* const written = batches[i]->written;
      results[i].places.resize(batches[i]->entries.size());
      if (written == nullptr) continue;
      CKPT_RETURN_IF_ERROR(packs.Indexed(written->pack, written->end));
      pins[i].insert(written->pack);
    }
    for (const auto& [key, i, j] : sorted) {
      const IndexEntry& entry = batches[i]->entries[j];
      CKPT_ASSIGN_OR_RETURN(const auto place, IndexEntryRow(txn, packs, healed, key, entry, results[i].new_bytes));
      if (place.has_value()) {
        results[i].places[j] = *place;
        pins[i].insert(place->pack);
      } else {
        results[i].gone.push_back(entry.name);
      }
    }
    if (std::any_of(results.begin(), results.end(), [](const IndexResult& result) { return !result.gone.empty(); }))
      return gone;
    CKPT_RETURN_IF_ERROR(Heal(txn, packs, healed));
    for (std::size_t i = 0; i < batches.size(); ++i) {
      const SessionRef& session = batches[i]->session;
      CKPT_RETURN_IF_ERROR(PutPins(txn, session.id, batches[i]->pins->NewOf(pins[i])));
      batches[i]->progress.set_new_bytes(results[i].new_bytes);
      const std::string key = keys::Progress(session.id, session.rank, session.fence, batches[i]->number);
      CKPT_RETURN_IF_ERROR(PutRow(txn, key, batches[i]->progress));
    }
    return absl::OkStatus();
  });
  if (status == gone) {
    for (IndexResult& result : results) result.new_bytes = 0;  // undone
  } else {
    CKPT_RETURN_IF_ERROR(status);
    for (std::size_t i = 0; i < batches.size(); ++i) batches[i]->pins->Add(pins[i]);
  }
  return results;
}

absl::StatusOr<IndexResult> ChunkIndex::Index(IndexBatch batch) {
  IndexBatch* const only = &batch;
  CKPT_ASSIGN_OR_RETURN(std::vector<IndexResult> results, Index(std::span(&only, 1)));
  return std::move(results.front());
}

absl::Status ChunkIndex::Quarantine(std::string_view domain, const RecordName& record, const PackId& pack,
                                    std::uint64_t offset) {
  const std::string key = RecordKey(domain, record);
  return engine_.Transact(KvEngine::Durability::kSync, [&](Transaction& txn) -> absl::Status {
    const auto is_damaged_one = [&](const std::optional<v1::ChunkRow>& row) {
      return row.has_value() && !row->quarantined() && row->pack() == pack.view() && row->offset() == offset;
    };
    CKPT_ASSIGN_OR_RETURN(auto row, GetRow<v1::ChunkRow>(txn, key, Hold::kNone));
    if (!is_damaged_one(row)) return absl::OkStatus();
    // The pack first: who waits for one that many hold keeps nobody from the row. Index takes them the other way round;
    // where that is a deadlock, the engine finds it.
    HeldPacks packs(txn);
    CKPT_RETURN_IF_ERROR(packs.NoteRowChange(pack));
    CKPT_ASSIGN_OR_RETURN(row, GetRow<v1::ChunkRow>(txn, key, Hold::kExclusive));
    if (!is_damaged_one(row)) return absl::OkStatus();
    row->set_quarantined(true);
    return PutRow(txn, key, *row);
  });
}

absl::StatusOr<std::vector<v1::ChunkRow>> ChunkIndex::Locate(std::string_view domain,
                                                             const std::vector<RecordName>& records) {
  std::vector<v1::ChunkRow> out;
  CKPT_RETURN_IF_ERROR(engine_.Transact(KvEngine::Durability::kLazy, [&](Transaction& txn) -> absl::Status {
    out.clear();
    CKPT_ASSIGN_OR_RETURN(auto rows, ReadRows(txn, domain, records));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (!rows[i].has_value())
        return MakeError(absl::StatusCode::kNotFound, "RECORD_MISSING",
                         absl::StrCat("record ", records[i].digest.ToHex(), " is not in the index"));
      out.push_back(*std::move(rows[i]));
    }
    return absl::OkStatus();
  }));
  return out;
}

}  // namespace ckpt::storage
