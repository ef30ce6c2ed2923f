// Reads a pickle without running it.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "client/formats/pickle_value.h"

namespace ckpt::formats {

// Interprets the opcodes that Python's pickler writes in protocols 2 to 5, building values of PickleKind. Objects of
// other types become kRefused and what is done to them has no effect. Texts of the graph are in `pickle`, which must
// outlive it. Nothing recurses, and memory grows with the pickle's size only.
// Errors: InvalidArgument, with the byte's position, for what no pickler writes.
absl::StatusOr<PickleGraph> ReadPickle(std::string_view pickle);

}  // namespace ckpt::formats
