#include "client/formats/tensor_role.h"

namespace ckpt::formats {

v1::Role RoleInModule(std::string_view name) {
  const std::string_view last = name.substr(name.rfind('.') + 1);  // npos + 1 is 0: the whole name
  const bool buffer = last == "running_mean" || last == "running_var" || last == "num_batches_tracked";
  return buffer ? v1::ROLE_BUFFER : v1::ROLE_PARAMETER;
}

}  // namespace ckpt::formats
