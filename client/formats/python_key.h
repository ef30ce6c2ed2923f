// Which values Python takes for one and the same key.
#pragma once

#include <optional>

#include "ckpt/v1/state.pb.h"

namespace ckpt::formats {

// A form that two values have in common if a dict or a set would find one by the other, as 1, 1.0 and True. Nothing for
// a value that is found by none: a NaN.
std::optional<v1::Scalar> PythonKey(const v1::Scalar& value);

}  // namespace ckpt::formats
