// Work on all cores.
#pragma once

#include <cstddef>

#include "absl/functional/function_ref.h"

namespace ckpt {

// Calls body(i) for each i below count, on as many threads as there are cores, or `least_threads` if that is more, this
// one among them, and returns when all calls have.
void ParallelFor(std::size_t count, absl::FunctionRef<void(std::size_t)> body, std::size_t least_threads = 1);

}  // namespace ckpt
