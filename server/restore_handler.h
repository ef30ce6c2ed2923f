// Serves one Restore stream.
#pragma once

#include "absl/status/status.h"
#include "server/raw_stream.h"
#include "storage/store.h"

namespace ckpt::server {

// Runs until all is sent or has failed; the caller closes the stream with the status. Blocks.
absl::Status ServeRestore(storage::Store& store, RawStream& stream);

}  // namespace ckpt::server
