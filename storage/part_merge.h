// Reads what several ranks have committed, and merges it.
#pragma once

#include <functional>

#include "absl/status/statusor.h"
#include "storage/part_table.h"
#include "storage/state_merge.h"
#include "storage/store.h"

namespace ckpt::storage {

// All parts are there. `at_work` is called now and then. Errors: as StateMerge; InvalidArgument TOO_LARGE for a part
// beyond kMaxMergedBytes; DataLoss DATA_DAMAGED names the rank whose part is damaged; others when one cannot be got at.
// Memory: the merged description and one part's; one merge at a time in a store.
absl::StatusOr<StateMerge::Merged> MergeParts(Store& store, const v1::SessionRow& session, const Parts& parts,
                                              const std::function<void()>& at_work);

}  // namespace ckpt::storage
