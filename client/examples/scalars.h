// The numbers in a state tree, by name.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "ckpt/state.h"

namespace digits {

// The scalars of a tree by path: the keys from the root joined with '.', a sequence's members by index; as the library
// names tensors.
class Scalars {
 public:
  explicit Scalars(std::span<const ckpt::v1::StateNode> nodes);

  // Sets `value`. FailedPrecondition if there is no such scalar or it is of another type.
  absl::Status Read(std::string_view path, std::int64_t& value) const;
  absl::Status Read(std::string_view path, double& value) const;

 private:
  // Null if there is none.
  [[nodiscard]] const ckpt::v1::Scalar* Find(std::string_view path) const;

  std::map<std::string, ckpt::v1::Scalar, std::less<>> by_path_;
};

}  // namespace digits
