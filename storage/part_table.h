// The parts of saves that several trainers make together: what each rank has committed while others have not.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ckpt/v1/checkpoint.pb.h"
#include "ckpt/v1/storage.pb.h"
#include "storage/kv_engine.h"
#include "storage/session_table.h"

namespace ckpt::storage {

// By rank; the coordinator's, if there is one, last.
using Parts = std::vector<std::optional<v1::PartRow>>;

// How many parts the session's checkpoint is made of.
std::uint32_t PartCount(const v1::SessionRow& session);

// True if a rank that committed the one may be told that it has committed the other.
bool IsSamePart(const v1::PartRow& a, const v1::PartRow& b);

// The ranks that have not committed.
std::vector<std::uint32_t> WaitsFor(const Parts& parts);

// The parts as they are now. What is decided on them holds only while the session's row is held exclusive.
absl::StatusOr<Parts> ReadParts(Transaction& txn, const SessionId& id, const v1::SessionRow& session);

// Thread-safe.
class PartTable {
 public:
  explicit PartTable(KvEngine& engine) : engine_(engine) {}

  // A rank has finished. While others have not, its part is noted, durably. Returns all parts: if none is missing the
  // last one, this, is not noted yet: the commit of what they make does that. So there is one at a time that commits,
  // and if it does not come to that its rank is still waited for. Errors: as HoldSession.
  absl::StatusOr<Parts> Finish(const SessionRef& session, const v1::PartRow& part);

  // The same rank's commit came again after the session had committed: AlreadyExists ATTEMPT_REUSED if it is another.
  absl::Status CheckSame(const SessionRef& session, const v1::PartRow& part);

 private:
  KvEngine& engine_;
};

}  // namespace ckpt::storage
