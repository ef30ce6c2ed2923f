// Reads a state tree as it comes, node after node, and says where each one is.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/digest.h"
#include "ckpt/v1/state.pb.h"

namespace ckpt {

// How deep a state may be nested.
inline constexpr std::size_t kMaxStateDepth = 1000;

// Bytes of one node of a state: of a text or an array of bytes in it.
inline constexpr std::size_t kMaxNodeBytes = 3U << 20;

// A state has its top-level keys as components if they are so many at most. A flat state dict, whose keys are its
// parameters, has none: they are no parts that anybody keeps or restores apart.
inline constexpr std::uint64_t kMaxComponents = 64;

// Checks a pre-order list of nodes and gives each node's place. Memory grows with the depth and with the keys of the
// mappings that are open, never with the tree; nothing recurses. Not thread-safe.
class StateWalk {
 public:
  // Takes the next node. InvalidArgument, with the path, for a node that cannot stand there: a kind, key, value or
  // count that does not fit, a key twice, too deep, or a node after the end.
  absl::Status Next(const v1::StateNode& node);

  // Of the node that Next took last: the keys from the root joined with '.' ("" for the root), and the component that
  // it is in ("" if none).
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const std::string& component() const { return component_; }
  // 0 for the root, 1 for its children.
  [[nodiscard]] std::size_t depth() const { return depth_; }

  // True when the tree is complete: one root and all that it announced.
  [[nodiscard]] bool Complete() const { return started_ && open_.empty(); }

  // The components so far, in order.
  [[nodiscard]] const std::vector<std::string>& components() const { return components_; }

 private:
  struct Open {
    v1::NodeKind kind;
    std::uint64_t children_left;
    std::uint64_t attributes_left;
    std::uint64_t index = 0;                // of the next child
    std::size_t path_size;                  // of the container's own path
    absl::flat_hash_set<Fingerprint> keys;  // of the children so far, then of the attributes
  };

  absl::Status Place(const v1::StateNode& node);
  [[nodiscard]] absl::Status Invalid(std::string_view what) const;

  bool started_ = false;
  std::vector<Open> open_;
  std::string path_;
  std::string component_;
  std::size_t depth_ = 0;
  std::vector<std::string> components_;
};

// The key as paths show it: a str as it is (control characters and malformed UTF-8 as \xNN), a number in decimal, …
std::string KeyText(const v1::Scalar& key);

// True when the children of a node of this kind have keys.
bool IsMapping(v1::NodeKind kind);

// True when a node of this kind has a tensor.
bool HasTensor(v1::NodeKind kind);

}  // namespace ckpt
