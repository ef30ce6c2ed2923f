// The promise of the file formats: what was read from a file can be saved, and written and read again it is the same.
#pragma once

#include "ckpt/formats.h"

namespace ckpt::fuzz {

// Breaks off (oracle.h) unless the state, which was read from a file, keeps the promise. A .pth may be refused as
// InvalidArgument: it can name devices and types that exist nowhere.
void CheckRoundTrip(const State& state, FileFormat format);

}  // namespace ckpt::fuzz
