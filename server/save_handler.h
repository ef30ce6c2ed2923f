// Serves one Save stream.
#pragma once

#include "absl/status/status.h"
#include "server/raw_stream.h"
#include "storage/store.h"

namespace ckpt::server {

// Runs until the save is done or has failed; the caller closes the stream with the status. Blocks.
absl::Status ServeSave(storage::Store& store, RawStream& stream);

}  // namespace ckpt::server
