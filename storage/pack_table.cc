#include "storage/pack_table.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "storage/keys.h"
#include "storage/rows.h"

namespace ckpt::storage {
namespace {

absl::StatusOr<std::uint64_t> IndexedLength(Transaction& txn, const PackId& pack) {
  CKPT_ASSIGN_OR_RETURN(const auto length, GetRow<v1::PackLengthRow>(txn, keys::PackLength(pack), Hold::kNone));
  return length.has_value() ? length->indexed_length() : 0;
}

absl::Status NoRow(const PackId& pack) {
  return MakeError(absl::StatusCode::kDataLoss, "CATALOG_DAMAGED", absl::StrCat("pack ", pack.ToHex(), " has no row"));
}

absl::Status Seal(Transaction& txn, const PackId& pack) {
  CKPT_ASSIGN_OR_RETURN(auto row, GetRow<v1::PackRow>(txn, keys::Pack(pack), Hold::kExclusive));
  CKPT_CHECK(row.has_value());
  if (row->sealed()) return absl::OkStatus();
  CKPT_ASSIGN_OR_RETURN(const std::uint64_t length, IndexedLength(txn, pack));
  if (row->state() == v1::PackRow::WRITING) row->set_state(v1::PackRow::LIVE);
  row->set_sealed(true);
  row->set_sealed_length(length);
  CKPT_RETURN_IF_ERROR(PutRow(txn, keys::Pack(pack), *row));
  return txn.Delete(keys::PackLength(pack));
}

// True if the pack is quarantined then: it is sealed, and has bytes that count.
absl::StatusOr<bool> Quarantine(Transaction& txn, const PackId& pack) {
  CKPT_ASSIGN_OR_RETURN(auto row, GetRow<v1::PackRow>(txn, keys::Pack(pack), Hold::kExclusive));
  if (!row.has_value() || row->sealed_length() == 0) return false;
  if (row->quarantined()) return true;
  row->set_quarantined(true);
  CKPT_RETURN_IF_ERROR(PutRow(txn, keys::Pack(pack), *row));
  return true;
}

}  // namespace

absl::Status PackTable::Announce(const PackId& pack, std::string_view domain) {
  v1::PackRow row;
  row.set_state(v1::PackRow::WRITING);
  row.set_domain(std::string(domain));
  return engine_.Transact(KvEngine::Durability::kSync,
                          [&](Transaction& txn) { return PutRow(txn, keys::Pack(pack), row); });
}

absl::Status PackTable::Sealed(const PackId& pack) {
  // Lazy: a crash before it is durable makes Recover seal the pack at the same length.
  return engine_.Transact(KvEngine::Durability::kLazy, [&](Transaction& txn) { return Seal(txn, pack); });
}

absl::Status PackTable::Lost(const PackId& pack) {
  return engine_.Transact(KvEngine::Durability::kSync, [&](Transaction& txn) -> absl::Status {
    CKPT_RETURN_IF_ERROR(Seal(txn, pack));
    return Quarantine(txn, pack).status();
  });
}

absl::StatusOr<bool> PackTable::FoundShort(const PackId& pack) {
  bool quarantined = false;
  CKPT_RETURN_IF_ERROR(engine_.Transact(KvEngine::Durability::kSync, [&](Transaction& txn) -> absl::Status {
    CKPT_ASSIGN_OR_RETURN(const auto row, GetRow<v1::PackRow>(txn, keys::Pack(pack), Hold::kNone));
    quarantined = row.has_value() && row->quarantined();  // one of its records after the other may be read
    if (!quarantined) {
      CKPT_ASSIGN_OR_RETURN(quarantined, Quarantine(txn, pack));
    }
    return absl::OkStatus();
  }));
  return quarantined;
}

absl::Status PackTable::Recover(const PackStore& packs) {
  CKPT_ASSIGN_OR_RETURN(const std::vector<PackStore::Listed> files, packs.List());
  std::map<PackId, std::uint64_t> sizes;
  for (const PackStore::Listed& file : files) sizes[file.pack] = file.size_bytes;
  std::vector<std::pair<PackId, v1::PackRow>> rows;
  CKPT_RETURN_IF_ERROR(engine_.Transact(KvEngine::Durability::kLazy, [&](Transaction& txn) {
    rows.clear();
    return ForEachRow(txn, keys::Packs(), [&](const std::string& key, const std::string& value) -> absl::Status {
      CKPT_ASSIGN_OR_RETURN(const PackId pack, keys::PackOf(key));
      CKPT_ASSIGN_OR_RETURN(v1::PackRow row, ParseRow<v1::PackRow>(key, value));
      rows.emplace_back(pack, std::move(row));
      return absl::OkStatus();
    });
  }));
  for (const auto& [id, before] : rows) {
    if (before.state() == v1::PackRow::DELETED) continue;
    const PackId& pack = id;  // clang 14 lets no lambda have the names of a binding
    const bool sealed = before.sealed();
    const auto size = sizes.find(pack);
    const std::uint64_t bytes = size == sizes.end() ? 0 : size->second;
    if (sealed && before.quarantined() == (bytes < before.sealed_length())) continue;  // as nearly all are
    CKPT_RETURN_IF_ERROR(engine_.Transact(KvEngine::Durability::kSync, [&](Transaction& txn) -> absl::Status {
      if (!sealed) CKPT_RETURN_IF_ERROR(Seal(txn, pack));
      CKPT_ASSIGN_OR_RETURN(auto row, GetRow<v1::PackRow>(txn, keys::Pack(pack), Hold::kExclusive));
      const bool too_short = bytes < row->sealed_length();
      if (row->quarantined() == too_short) return absl::OkStatus();
      if (too_short) {
        const std::string has = size == sizes.end() ? "is gone" : absl::StrCat("has ", bytes);
        spdlog::error("pack {} of domain {} should have {} bytes and {}: checkpoints that use it are damaged",
                      pack.ToHex(), row->domain(), row->sealed_length(), has);
      } else {
        spdlog::info("pack {} of domain {} has all its bytes again", pack.ToHex(), row->domain());
      }
      row->set_quarantined(too_short);
      return PutRow(txn, keys::Pack(pack), *row);
    }));
  }
  return absl::OkStatus();
}

bool IsUsable(const v1::PackRow& pack) { return pack.state() == v1::PackRow::LIVE && !pack.quarantined(); }

absl::Status HeldPacks::HoldAll(const std::set<PackId>& packs) {
  std::vector<std::string> row_keys;
  row_keys.reserve(packs.size());
  for (const PackId& pack : packs) row_keys.push_back(keys::Pack(pack));
  CKPT_ASSIGN_OR_RETURN(const auto values, txn_.MultiGet(row_keys, Hold::kShared));
  std::size_t i = 0;
  for (const PackId& pack : packs) {
    if (!values[i].has_value()) return NoRow(pack);
    CKPT_ASSIGN_OR_RETURN(rows_[pack], ParseRow<v1::PackRow>(row_keys[i], *values[i]));
    ++i;
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::PackRow*> HeldPacks::Row(const PackId& pack, Hold hold) {
  if (hold == Hold::kShared)
    if (const auto it = rows_.find(pack); it != rows_.end()) return &it->second;
  CKPT_ASSIGN_OR_RETURN(auto row, GetRow<v1::PackRow>(txn_, keys::Pack(pack), hold));
  if (!row.has_value()) return NoRow(pack);
  return &(rows_[pack] = *std::move(row));
}

absl::StatusOr<bool> HeldPacks::Usable(const PackId& pack) {
  CKPT_ASSIGN_OR_RETURN(const v1::PackRow* row, Row(pack, Hold::kShared));
  return IsUsable(*row);
}

const v1::PackRow* HeldPacks::Held(const PackId& pack) const {
  const auto held = rows_.find(pack);
  return held == rows_.end() ? nullptr : &held->second;
}

absl::Status HeldPacks::NoteRowChange(const PackId& pack) {
  CKPT_ASSIGN_OR_RETURN(v1::PackRow * row, Row(pack, Hold::kExclusive));
  if (row->rows_changed()) return absl::OkStatus();
  row->set_rows_changed(true);
  return PutRow(txn_, keys::Pack(pack), *row);
}

absl::Status HeldPacks::Indexed(const PackId& pack, std::uint64_t end) {
  CKPT_ASSIGN_OR_RETURN(v1::PackRow * row, Row(pack, Hold::kShared));
  if (row->state() == v1::PackRow::WRITING) {
    CKPT_ASSIGN_OR_RETURN(row, Row(pack, Hold::kExclusive));
    row->set_state(v1::PackRow::LIVE);
    CKPT_RETURN_IF_ERROR(PutRow(txn_, keys::Pack(pack), *row));
  }
  v1::PackLengthRow length;
  length.set_indexed_length(end);
  return PutRow(txn_, keys::PackLength(pack), length);
}

}  // namespace ckpt::storage
