// Merges the states that several ranks sent, each as it sees it, into the one that they are parts of.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ckpt/v1/state.pb.h"
#include "storage/limits.h"

namespace ckpt::storage {

// Trees are merged by their keys (see service.proto, Save). The order of a mapping's keys is that of the first rank
// that has it, then come those that only later ranks have. Not thread-safe. Memory: the merged state's description.
class StateMerge {
 public:
  // `at_work` is called now and then.
  explicit StateMerge(
      std::uint64_t max_bytes = kMaxMergedBytes, std::function<void()> at_work = [] {})
      : max_bytes_(max_bytes), at_work_(std::move(at_work)) {}

  // Merges the next rank's state, as TensorIntake and StateWalk took it; an empty one adds nothing. InvalidArgument
  // RANKS_DIFFER, with the path, where it contradicts what is there; TOO_LARGE.
  absl::Status Add(std::uint32_t rank, std::vector<v1::Tensor> tensors, std::vector<v1::StateNode> nodes);

  struct Merged {
    std::vector<v1::StateNode> nodes;
    std::vector<v1::Tensor> tensors;  // by number
    std::vector<std::string> components;
  };
  // The whole. InvalidArgument: as TileBoxes, and for a state beyond a limit.
  absl::StatusOr<Merged> Finish() &&;

 private:
  struct Node {
    v1::StateNode node;  // without its counts
    std::uint32_t rank;  // whose it was first
    std::vector<std::uint32_t> children;
    std::vector<std::uint32_t> attributes;
  };
  struct Frame;
  class Numbers;

  absl::StatusOr<std::uint32_t> Merge(Frame* parent, std::uint32_t rank, v1::StateNode node, Numbers& numbers,
                                      const std::string& path);
  absl::Status CheckSame(const Node& known, std::uint32_t rank, const v1::StateNode& node,
                         const std::string& path) const;
  // The merged tensor that a rank's is, at a place that has none yet, and at one where earlier ranks have `there`.
  std::uint64_t PlaceNew(std::uint64_t number, Numbers& numbers);
  absl::StatusOr<std::uint64_t> PlaceAgain(std::uint64_t there, std::uint64_t number, std::uint32_t rank,
                                           Numbers& numbers, const std::string& path);
  absl::Status MergeTensor(std::uint64_t into, const v1::Tensor& tensor, const std::string& path);

  const std::uint64_t max_bytes_;
  const std::function<void()> at_work_;
  std::vector<Node> nodes_;  // the root first
  // By parent and, in front of what names it there, whether it is a child or an attribute.
  absl::flat_hash_map<std::pair<std::uint32_t, std::string>, std::uint32_t> index_;
  std::vector<v1::Tensor> tensors_;  // with the boxes of all ranks so far
  std::uint64_t size_bytes_ = 0;     // of all that
};

}  // namespace ckpt::storage
