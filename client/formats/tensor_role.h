// What a tensor of a file is to the training, guessed from where it stands: files do not say.
#pragma once

#include <string_view>

#include "ckpt/v1/state.pb.h"

namespace ckpt::formats {

// The role of a module's tensor by its name: BatchNorm's statistics are buffers, all else is a parameter.
v1::Role RoleInModule(std::string_view name);

}  // namespace ckpt::formats
