// Reads the records of manifests.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/digest.h"
#include "storage/chunk_index.h"
#include "storage/pack_store.h"
#include "storage/store.h"

namespace ckpt::storage {

// What a record is for, for people: "run r epoch 1 version 1", "its manifest".
struct RecordUse {
  std::string owner;
  std::string what;
};

// The record of this digest, checked. DataLoss when its bytes are gone: then it counts as missing, and the next save
// that has it stores it anew. Other errors say that it cannot be got at, and may be well.
absl::StatusOr<std::string> ReadManifestRecord(Store& store, const std::string& domain, const Digest& digest,
                                               const RecordUse& use);

// A record was read at this place, and could not be. DataLoss, without the owner, when that means that its bytes are
// gone: that is logged then, and it is quarantined, or its whole pack where that is gone or ends too early. Else the
// status, with all that is known.
absl::Status NoteUnreadable(Store& store, const std::string& domain, const RecordName& record, const PackId& pack,
                            std::uint64_t offset, const RecordUse& use, const absl::Status& status);

}  // namespace ckpt::storage
