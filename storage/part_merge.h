// Reads what several ranks have committed, and merges it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "storage/part_table.h"
#include "storage/state_merge.h"
#include "storage/store.h"

namespace ckpt::storage {

// All parts are there. Errors: as StateMerge; DataLoss DATA_DAMAGED names the rank whose part cannot be read any more.
// Memory: the merged description, and one part's.
absl::StatusOr<StateMerge::Merged> MergeParts(Store& store, const std::string& domain, const Parts& parts);

}  // namespace ckpt::storage
