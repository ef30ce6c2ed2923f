// Work on all cores.
#pragma once

#include <cstddef>

#include "absl/functional/function_ref.h"

namespace ckpt::client {

// Calls body(i) for each i below count, on as many threads as there are cores, this one among them, and returns when
// all calls have.
void ParallelFor(std::size_t count, absl::FunctionRef<void(std::size_t)> body);

}  // namespace ckpt::client
