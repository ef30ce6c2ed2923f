#include "storage/pin_table.h"

#include <string>
#include <string_view>
#include <vector>

#include "base/digest.h"
#include "base/status.h"
#include "ckpt/v1/storage.pb.h"
#include "storage/rows.h"

namespace ckpt::storage {
namespace {

// The row's packs, one after the other.
absl::StatusOr<std::string> PackList(std::string_view key, std::string_view value) {
  CKPT_ASSIGN_OR_RETURN(v1::PinsRow row, ParseRow<v1::PinsRow>(key, value));
  if (row.packs().size() % PackId::kSize != 0)
    return MakeError(absl::StatusCode::kDataLoss, "CATALOG_DAMAGED", "a row of pins ends within a pack's id");
  return std::move(*row.mutable_packs());
}

struct SessionPins {
  std::vector<std::string> keys;  // of its rows
  std::set<PackId> packs;
};

absl::StatusOr<SessionPins> ReadPins(Transaction& txn, const SessionId& session) {
  SessionPins pins;
  CKPT_RETURN_IF_ERROR(ForEachRow(txn, keys::PinsOfSession(session),
                                  [&](const std::string& key, const std::string& value) -> absl::Status {
                                    CKPT_ASSIGN_OR_RETURN(const std::string list, PackList(key, value));
                                    pins.keys.push_back(key);
                                    for (std::size_t i = 0; i < list.size() / PackId::kSize; ++i)
                                      pins.packs.insert(PackId::At(list, i));
                                    return absl::OkStatus();
                                  }));
  return pins;
}

}  // namespace

std::set<PackId> StreamPins::NewOf(const std::set<PackId>& packs) const {
  const MutexLock lock(mutex_);
  std::set<PackId> out;
  for (const PackId& pack : packs)
    if (!pinned_.contains(pack)) out.insert(pack);
  return out;
}

void StreamPins::Add(const std::set<PackId>& packs) {
  const MutexLock lock(mutex_);
  pinned_.insert(packs.begin(), packs.end());
}

absl::Status PutPins(Transaction& txn, const SessionId& session, const std::set<PackId>& packs) {
  if (packs.empty()) return absl::OkStatus();
  v1::PinsRow row;
  row.mutable_packs()->reserve(packs.size() * PackId::kSize);
  for (const PackId& pack : packs) row.mutable_packs()->append(pack.view());
  const std::string key = keys::Pins(session, Sha256(row.packs()));
  CKPT_ASSIGN_OR_RETURN(const auto same, txn.Get(key, Hold::kNone));
  return same.has_value() ? absl::OkStatus() : PutRow(txn, key, row);
}

absl::StatusOr<std::set<PackId>> PinnedPacks(Transaction& txn, const SessionId& session) {
  CKPT_ASSIGN_OR_RETURN(SessionPins pins, ReadPins(txn, session));
  return std::move(pins.packs);
}

absl::StatusOr<std::map<SessionId, std::set<PackId>>> PinnedBySession(Transaction& txn, const std::set<PackId>& packs) {
  std::map<SessionId, std::set<PackId>> pinned;
  CKPT_RETURN_IF_ERROR(
      ForEachRow(txn, keys::AllPins(), [&](const std::string& key, const std::string& value) -> absl::Status {
        CKPT_ASSIGN_OR_RETURN(const SessionId session, keys::PinningSessionOf(key));
        CKPT_ASSIGN_OR_RETURN(const std::string list, PackList(key, value));
        for (std::size_t i = 0; i < list.size() / PackId::kSize; ++i) {
          const PackId pack = PackId::At(list, i);
          if (packs.contains(pack)) pinned[session].insert(pack);
        }
        return absl::OkStatus();
      }));
  return pinned;
}

absl::Status DropPins(Transaction& txn, const SessionId& session, std::set<PackId> held) {
  // Whoever moves a record to another pack gives that one the pins of the old one, for sessions whose rows it does not
  // hold; but it holds the old pack exclusive. So when a scan finds only packs that are held already, nobody has such a
  // pin under way.
  SessionPins pins;
  while (true) {
    CKPT_ASSIGN_OR_RETURN(pins, ReadPins(txn, session));
    std::vector<std::string> fresh;
    for (const PackId& pack : pins.packs)
      if (!held.contains(pack)) fresh.push_back(keys::Pack(pack));
    if (fresh.empty()) break;
    CKPT_RETURN_IF_ERROR(txn.MultiGet(fresh, Hold::kShared).status());
    held.merge(pins.packs);
  }
  for (const std::string& key : pins.keys) CKPT_RETURN_IF_ERROR(txn.Delete(key));
  return absl::OkStatus();
}

}  // namespace ckpt::storage
