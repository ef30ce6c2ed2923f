// What names may look like.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "ckpt/v1/checkpoint.pb.h"
#include "google/protobuf/repeated_ptr_field.h"

namespace ckpt::storage {

// [A-Za-z0-9][A-Za-z0-9._/-]{0,199} without ".." and "//". InvalidArgument BAD_NAME otherwise.
absl::Status CheckRunName(std::string_view name);

// [A-Za-z0-9][A-Za-z0-9._-]{0,63}. InvalidArgument BAD_NAME otherwise.
absl::Status CheckDomain(std::string_view name);

// At most 100 each, with names as checkpoint.proto has them and none twice; puts them in order of their name.
absl::Status CheckAndSort(google::protobuf::RepeatedPtrField<v1::Metric>& metrics);
absl::Status CheckAndSort(google::protobuf::RepeatedPtrField<v1::Label>& labels);

}  // namespace ckpt::storage
