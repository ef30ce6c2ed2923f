// The ordered key-value store under the catalog, as narrow as the catalog needs it. Every implementation passes
// kv_engine_contract_test.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/status.h"

namespace ckpt::storage {

// How a read is guarded until its transaction ends.
enum class Hold {
  kNone,       // not at all: the latest committed value, or this transaction's own
  kShared,     // nobody changes it meanwhile; others may hold it shared too
  kExclusive,  // nobody changes or holds it meanwhile
};

// The error by which a body, or a call of its transaction, asks to be run again: Aborted with this reason.
inline constexpr char kConflict[] = "CONFLICT";
[[nodiscard]] inline absl::Status Conflict() {
  return MakeError(absl::StatusCode::kAborted, kConflict, "transactions were in each other's way; try again");
}

// How much one Scan reads.
inline constexpr std::size_t kScanBytes = std::size_t{4} << 20;

// One transaction. Not thread-safe; lives while Transact's body runs. Any call may say Conflict(): the body returns it
// and is run again.
class Transaction {
 public:
  virtual ~Transaction() = default;

  // The value, or nullopt. A hold guards absence too.
  virtual absl::StatusOr<std::optional<std::string>> Get(std::string_view key, Hold hold) = 0;

  // The values of many keys: as many as keys, in their order. All are held before the first is read.
  virtual absl::StatusOr<std::vector<std::optional<std::string>>> MultiGet(std::span<const std::string> keys,
                                                                           Hold hold) = 0;

  // Takes effect when the transaction commits; held exclusive from now on.
  virtual absl::Status Put(std::string_view key, std::string_view value) = 0;
  virtual absl::Status Delete(std::string_view key) = 0;

  // The first rows whose key starts with `prefix` and is greater than `after` ("": all), in order of the key, this
  // transaction's own writes among them: at most `limit`, and no more once they have kScanBytes together. None: there
  // are no more. Not guarded: whoever decides on a scan first holds a row in the way of every writer whose rows would
  // matter.
  virtual absl::StatusOr<std::vector<std::pair<std::string, std::string>>> Scan(std::string_view prefix,
                                                                                std::string_view after,
                                                                                std::size_t limit) = 0;
};

// Thread-safe.
class KvEngine {
 public:
  virtual ~KvEngine() = default;

  enum class Durability {
    kSync,  // after OK it survives power loss
    kLazy,  // survives a crash of the process; a later kSync makes it durable as well
  };

  // Runs the body and commits what it wrote, all or nothing. After a Conflict() from the body or at the commit all is
  // undone and the body is run again, so it must have no effects of its own; after enough of them Transact gives up
  // with it, and callers pass that on: clients know it. Any other error of the body undoes all and is returned. Locks
  // are taken in the order of the calls: a body takes its keys in rising order where it can, and deadlocks are
  // conflicts. Reads outside a transaction are Transacts that write nothing: they cost no write. A commit that fails
  // for another reason (disk) calls the engine's failure handler, which does not return.
  virtual absl::Status Transact(Durability durability, const std::function<absl::Status(Transaction&)>& body) = 0;
};

}  // namespace ckpt::storage
