#include "client/examples/scalars.h"

#include <bit>
#include <vector>

#include "absl/strings/str_cat.h"

namespace digits {
namespace {

// A container whose members are being walked over.
struct Container {
  std::string prefix;         // of its members' paths
  std::uint64_t members = 0;  // in all
  std::uint64_t seen = 0;
};

std::string NameIn(const Container& container, const ckpt::v1::StateNode& node) {
  if (!node.has_key()) return absl::StrCat(container.seen);
  if (node.key().has_int_value()) return absl::StrCat(node.key().int_value());
  return node.key().str_value();
}

}  // namespace

Scalars::Scalars(std::span<const ckpt::v1::StateNode> nodes) {
  std::vector<Container> open;
  for (const ckpt::v1::StateNode& node : nodes) {
    while (!open.empty() && open.back().seen == open.back().members) open.pop_back();
    std::string path;
    if (!open.empty()) {
      path = open.back().prefix + NameIn(open.back(), node);
      ++open.back().seen;
    }
    if (node.kind() == ckpt::v1::NODE_KIND_SCALAR) by_path_.emplace(path, node.value());
    const std::uint64_t members = node.child_count() + node.attribute_count();
    if (members != 0) open.push_back({.prefix = path.empty() ? "" : path + ".", .members = members});
  }
}

absl::Status Scalars::Read(std::string_view path, std::int64_t& value) const {
  const ckpt::v1::Scalar* scalar = Find(path);
  if (scalar == nullptr || !scalar->has_int_value())
    return absl::FailedPreconditionError(absl::StrCat(std::string(path), ": the checkpoint has no such integer"));
  value = scalar->int_value();
  return absl::OkStatus();
}

absl::Status Scalars::Read(std::string_view path, double& value) const {
  const ckpt::v1::Scalar* scalar = Find(path);
  if (scalar == nullptr || !scalar->has_float_bits())
    return absl::FailedPreconditionError(absl::StrCat(std::string(path), ": the checkpoint has no such float"));
  value = std::bit_cast<double>(scalar->float_bits());
  return absl::OkStatus();
}

const ckpt::v1::Scalar* Scalars::Find(std::string_view path) const {
  const auto found = by_path_.find(path);
  return found == by_path_.end() ? nullptr : &found->second;
}

}  // namespace digits
