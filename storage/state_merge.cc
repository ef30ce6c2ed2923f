#include "storage/state_merge.h"

#include <algorithm>
#include <optional>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "base/box.h"
#include "base/state_walk.h"
#include "base/status.h"
#include "storage/box_tiling.h"
#include "storage/limits.h"

namespace ckpt::storage {
namespace {

// Nodes or tensors between two calls of at_work.
constexpr std::uint64_t kAtWork = 1024;

absl::Status Differ(const std::string& path, const std::string& what) {
  return MakeError(absl::StatusCode::kInvalidArgument, "RANKS_DIFFER",
                   absl::StrCat(path.empty() ? "the root of the state" : path, ": ", what,
                                "; what belongs to one rank goes under a key of its own"));
}

bool IsSet(v1::NodeKind kind) { return kind == v1::NODE_KIND_SET || kind == v1::NODE_KIND_FROZENSET; }

// What names a child among its siblings. Members of a set come in any order.
std::string NameOf(v1::NodeKind parent, std::uint64_t index, const v1::StateNode& node) {
  if (IsMapping(parent)) return absl::StrCat("k", node.key().SerializeAsString());
  if (IsSet(parent)) return absl::StrCat("k", node.value().SerializeAsString());
  return absl::StrCat("k", index);
}

// Ranks must describe a tensor alike, but for its device and its boxes.
absl::Status CheckAlike(const v1::Tensor& a, const v1::Tensor& b, const std::string& path) {
  const auto same = [](const auto& x, const auto& y) { return std::equal(x.begin(), x.end(), y.begin(), y.end()); };
  // What a tensor is to the training shows in all its places, and a rank without bytes of it may know of one only.
  const bool both_send = !a.boxes().empty() && !b.boxes().empty();
  if (a.dtype() == b.dtype() && same(a.shape(), b.shape()) && same(a.strides(), b.strides()) &&
      (a.role() == b.role() || !both_send) && a.requires_grad() == b.requires_grad())
    return absl::OkStatus();
  return Differ(path, "ranks describe this tensor differently: its dtype, whole shape, strides, role or requires_grad");
}

// The bytes that the tensor came with, as boxes: an inline one is one box that is the whole.
void InlineToBox(v1::Tensor& tensor) {
  if (tensor.inline_data().empty()) return;
  v1::Box whole = WholeBox(tensor);
  whole.set_inline_data(std::move(*tensor.mutable_inline_data()));
  tensor.clear_inline_data();
  *tensor.add_boxes() = std::move(whole);
}

}  // namespace

// A container whose children are still to come.
struct StateMerge::Frame {
  std::uint32_t node = 0;
  std::uint64_t children_left = 0;
  std::uint64_t attributes_left = 0;
  std::uint64_t index = 0;  // of the next child
};

// A rank's tensors, and which merged one each is.
class StateMerge::Numbers {
 public:
  explicit Numbers(std::vector<v1::Tensor> tensors) : tensors_(std::move(tensors)), merged_(tensors_.size()) {}

  [[nodiscard]] bool Has(std::uint64_t number) const { return number < tensors_.size(); }
  [[nodiscard]] const v1::Tensor& At(std::uint64_t number) const { return tensors_[number]; }
  // The rank sends bytes of it.
  [[nodiscard]] bool Sends(std::uint64_t number) const {
    const v1::Tensor& tensor = tensors_[number];
    return !tensor.boxes().empty() || absl::c_linear_search(tensor.shape(), 0U);  // all there is of it
  }
  [[nodiscard]] std::optional<std::uint64_t> Of(std::uint64_t number) const { return merged_[number]; }
  // The rank's tensor is the merged one. Of those that it sends, false when another one of them is.
  bool Join(std::uint64_t number, std::uint64_t merged) {
    merged_[number] = merged;
    return !Sends(number) || owner_.try_emplace(merged, number).first->second == number;
  }

 private:
  const std::vector<v1::Tensor> tensors_;
  std::vector<std::optional<std::uint64_t>> merged_;
  absl::flat_hash_map<std::uint64_t, std::uint64_t> owner_;
};

absl::Status StateMerge::Add(std::uint32_t rank, std::vector<v1::Tensor> tensors, std::vector<v1::StateNode> nodes) {
  for (v1::Tensor& tensor : tensors) InlineToBox(tensor);
  Numbers numbers(std::move(tensors));
  StateWalk walk;
  std::vector<Frame> open;
  std::uint64_t done = 0;
  for (v1::StateNode& node : nodes) {
    if (done++ % kAtWork == 0) at_work_();
    CKPT_RETURN_IF_ERROR(walk.Next(node));
    const std::uint64_t children = node.child_count();
    const std::uint64_t attributes = node.attribute_count();
    CKPT_ASSIGN_OR_RETURN(const std::uint32_t merged,
                          Merge(open.empty() ? nullptr : &open.back(), rank, std::move(node), numbers, walk.path()));
    if (children + attributes != 0) open.push_back({merged, children, attributes, 0});
    while (!open.empty() && open.back().children_left + open.back().attributes_left == 0) open.pop_back();
  }
  return absl::OkStatus();
}

// Finds the node's counterpart below its parent, or adds it there. Returns its index.
absl::StatusOr<std::uint32_t> StateMerge::Merge(Frame* parent, std::uint32_t rank, v1::StateNode node, Numbers& numbers,
                                                const std::string& path) {
  const auto fresh = static_cast<std::uint32_t>(nodes_.size());
  std::uint32_t found = fresh;
  bool attribute = false;
  if (parent == nullptr) {
    found = 0;  // the root; the first rank's is the first node
  } else {
    attribute = parent->children_left == 0;
    --(attribute ? parent->attributes_left : parent->children_left);
    std::string name = attribute ? absl::StrCat("a", node.key().SerializeAsString())
                                 : NameOf(nodes_[parent->node].node.kind(), parent->index++, node);
    found = index_.try_emplace({parent->node, std::move(name)}, fresh).first->second;
  }
  if (found != fresh) CKPT_RETURN_IF_ERROR(CheckSame(nodes_[found], rank, node, path));
  if (HasTensor(node.kind())) {
    const std::uint64_t number = node.tensor();
    if (!numbers.Has(number)) return Differ(path, absl::StrCat("rank ", rank, " has no tensor number ", number));
    if (found == fresh) {
      node.set_tensor(PlaceNew(number, numbers));
    } else {
      CKPT_ASSIGN_OR_RETURN(const std::uint64_t merged,
                            PlaceAgain(nodes_[found].node.tensor(), number, rank, numbers, path));
      nodes_[found].node.set_tensor(merged);
    }
  }
  size_bytes_ += found == fresh ? node.ByteSizeLong() : 0;
  if (nodes_.size() >= kMaxNodes || tensors_.size() > kMaxTensors || size_bytes_ > max_bytes_)
    return MakeError(absl::StatusCode::kInvalidArgument, "TOO_LARGE",
                     absl::StrCat("what several trainers save together may have ", kMaxNodes, " values, ", kMaxTensors,
                                  " tensors and a description of ", max_bytes_ >> 20, " MiB at most"));
  if (found != fresh) return found;
  if (parent != nullptr) {
    Node& above = nodes_[parent->node];
    if (!attribute && above.rank != rank && !IsMapping(above.node.kind()))
      return Differ(path, absl::StrCat("rank ", rank, " has it, and rank ", above.rank, " has not"));
    (attribute ? above.attributes : above.children).push_back(fresh);
  }
  nodes_.push_back({std::move(node), rank, {}, {}});
  return fresh;
}

absl::Status StateMerge::CheckSame(const Node& known, std::uint32_t rank, const v1::StateNode& node,
                                   const std::string& path) const {
  const v1::StateNode& before = known.node;
  const auto differs = [&](const std::string& what) {
    return Differ(path, absl::StrCat("rank ", rank, " has another ", what, " there than rank ", known.rank));
  };
  if (before.kind() != node.kind() || before.type_name() != node.type_name()) return differs("type");
  if (before.value().SerializeAsString() != node.value().SerializeAsString()) return differs("value");
  // All its children are there: those of a rank come together, before the next rank's.
  if (!IsMapping(node.kind()) && known.children.size() != node.child_count()) return differs("number of members");
  return absl::OkStatus();
}

std::uint64_t StateMerge::PlaceNew(std::uint64_t number, Numbers& numbers) {
  if (const auto known = numbers.Of(number); known.has_value() && numbers.Sends(number)) return *known;
  const std::uint64_t merged = tensors_.size();
  tensors_.push_back(numbers.At(number));
  size_bytes_ += tensors_.back().ByteSizeLong();
  (void)numbers.Join(number, merged);
  return merged;
}

absl::StatusOr<std::uint64_t> StateMerge::PlaceAgain(std::uint64_t there, std::uint64_t number, std::uint32_t rank,
                                                     Numbers& numbers, const std::string& path) {
  const auto known = numbers.Of(number);
  if (!known.has_value() || !numbers.Sends(number)) {
    if (!numbers.Join(number, there))
      return Differ(path, absl::StrCat("rank ", rank, " has two tensors where earlier ranks share one"));
    CKPT_RETURN_IF_ERROR(MergeTensor(there, numbers.At(number), path));
    return there;
  }
  if (*known == there) return there;
  // It stands elsewhere too, on this rank. Whoever had it apart may have had nothing of it.
  if (!tensors_[there].boxes().empty())
    return Differ(path,
                  absl::StrCat("rank ", rank, " shares this tensor with another place, and earlier ranks do not"));
  CKPT_RETURN_IF_ERROR(CheckAlike(tensors_[there], numbers.At(number), path));
  return *known;
}

absl::Status StateMerge::MergeTensor(std::uint64_t into, const v1::Tensor& tensor, const std::string& path) {
  v1::Tensor& known = tensors_[into];
  CKPT_RETURN_IF_ERROR(CheckAlike(known, tensor, path));
  if (known.boxes().empty() && !tensor.boxes().empty()) known.set_role(tensor.role());
  for (const v1::Box& box : tensor.boxes()) {
    // What all ranks hold, and all sent, is kept once.
    if (!known.boxes().empty() && known.boxes(0).SerializeAsString() == box.SerializeAsString()) continue;
    size_bytes_ += box.ByteSizeLong();
    *known.add_boxes() = box;
  }
  return absl::OkStatus();
}

absl::StatusOr<StateMerge::Merged> StateMerge::Finish() && {
  if (nodes_.empty()) return MakeError(absl::StatusCode::kInvalidArgument, "BAD_STATE", "no rank sent a state");
  Merged merged;
  StateWalk walk;
  std::vector<std::optional<std::uint64_t>> numbers(tensors_.size());
  std::vector<std::uint32_t> open{0};
  while (!open.empty()) {
    Node& next = nodes_[open.back()];
    open.pop_back();
    open.insert(open.end(), next.attributes.rbegin(), next.attributes.rend());
    open.insert(open.end(), next.children.rbegin(), next.children.rend());
    v1::StateNode node = std::move(next.node);
    node.set_child_count(next.children.size());
    node.set_attribute_count(next.attributes.size());
    CKPT_RETURN_IF_ERROR(walk.Next(node));
    if (HasTensor(node.kind())) {
      std::optional<std::uint64_t>& number = numbers[node.tensor()];
      if (!number.has_value()) {
        number = merged.tensors.size();
        v1::Tensor tensor = std::move(tensors_[node.tensor()]);
        tensor.set_path(walk.path());
        tensor.set_component(walk.component());
        if (*number % kAtWork == 0) at_work_();
        CKPT_RETURN_IF_ERROR(TileBoxes(tensor));
        merged.tensors.push_back(std::move(tensor));
      }
      node.set_tensor(*number);
    }
    merged.nodes.push_back(std::move(node));
  }
  merged.components = walk.components();
  return merged;
}

}  // namespace ckpt::storage
