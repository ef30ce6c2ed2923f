// Reads of the catalog: runs, checkpoints, and what a reference names.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "ckpt/v1/service.pb.h"
#include "storage/kv_engine.h"

namespace ckpt::storage {

// Errors of all: NotFound (RUN_NOT_FOUND, CHECKPOINT_NOT_FOUND), InvalidArgument (names, references, page tokens).
absl::StatusOr<v1::Run> GetRun(KvEngine& engine, std::string_view domain, std::string_view run);
absl::StatusOr<v1::ListRunsResponse> ListRuns(KvEngine& engine, const v1::ListRunsRequest& request);
absl::StatusOr<v1::ListCheckpointsResponse> ListCheckpoints(KvEngine& engine,
                                                            const v1::ListCheckpointsRequest& request);
absl::StatusOr<v1::Checkpoint> Resolve(KvEngine& engine, std::string_view domain, std::string_view reference);

}  // namespace ckpt::storage
