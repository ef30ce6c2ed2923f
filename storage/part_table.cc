#include "storage/part_table.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "storage/keys.h"
#include "storage/rows.h"

namespace ckpt::storage {

std::uint32_t PartCount(const v1::SessionRow& session) {
  return session.world_size() + (session.coordinated() ? 1 : 0);
}

bool IsSamePart(const v1::PartRow& a, const v1::PartRow& b) {
  const auto content = [](v1::PartRow part) {
    part.clear_new_bytes();
    return part.SerializeAsString();
  };
  return content(a) == content(b);
}

std::vector<std::uint32_t> WaitsFor(const Parts& parts) {
  std::vector<std::uint32_t> ranks;
  for (std::uint32_t rank = 0; rank < parts.size(); ++rank)
    if (!parts[rank].has_value()) ranks.push_back(rank);
  return ranks;
}

absl::StatusOr<Parts> ReadParts(Transaction& txn, const SessionId& id, const v1::SessionRow& session) {
  Parts parts(PartCount(session));
  CKPT_RETURN_IF_ERROR(
      ForEachRow(txn, keys::PartsOf(id), [&](const std::string& key, const std::string& value) -> absl::Status {
        CKPT_ASSIGN_OR_RETURN(const std::uint32_t rank, keys::RankOf(key));
        CKPT_ASSIGN_OR_RETURN(v1::PartRow row, ParseRow<v1::PartRow>(key, value));
        if (rank >= parts.size())
          return MakeError(absl::StatusCode::kDataLoss, "CATALOG_DAMAGED", "a save has a part that it cannot have");
        parts[rank] = std::move(row);
        return absl::OkStatus();
      }));
  return parts;
}

absl::StatusOr<Parts> PartTable::Finish(const SessionRef& session, const v1::PartRow& part) {
  Parts parts;
  CKPT_RETURN_IF_ERROR(engine_.Transact(KvEngine::Durability::kSync, [&](Transaction& txn) -> absl::Status {
    // Exclusive, so that of two ranks that finish at once one sees the other.
    CKPT_ASSIGN_OR_RETURN(const v1::SessionRow row, HoldSession(txn, session, Hold::kExclusive));
    CKPT_ASSIGN_OR_RETURN(parts, ReadParts(txn, session.id, row));
    parts[session.rank] = part;
    if (WaitsFor(parts).empty()) return absl::OkStatus();
    return PutRow(txn, keys::Part(session.id, session.rank), part);
  }));
  return parts;
}

absl::Status PartTable::CheckSame(const SessionRef& session, const v1::PartRow& part) {
  return engine_.Transact(KvEngine::Durability::kLazy, [&](Transaction& txn) -> absl::Status {
    CKPT_ASSIGN_OR_RETURN(const auto row, GetRow<v1::PartRow>(txn, keys::Part(session.id, session.rank), Hold::kNone));
    if (row.has_value() && IsSamePart(*row, part)) return absl::OkStatus();
    return MakeError(absl::StatusCode::kAlreadyExists, "ATTEMPT_REUSED",
                     absl::StrCat("rank ", session.rank,
                                  " had committed other content in this attempt; draw a new key for each attempt"));
  });
}

}  // namespace ckpt::storage
