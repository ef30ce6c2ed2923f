#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/glob.h"
#include "base/state_walk.h"
#include "base/status.h"
#include "ckpt/state.h"

namespace ckpt {
namespace {

// Members of these cannot be left out one by one: the others would move, or a set would be another.
bool IsAllOrNothing(v1::NodeKind kind) {
  return kind == v1::NODE_KIND_LIST || kind == v1::NODE_KIND_TUPLE || kind == v1::NODE_KIND_SIZE ||
         kind == v1::NODE_KIND_SET || kind == v1::NODE_KIND_FROZENSET;
}

struct Place {
  std::size_t parent = 0;
  bool attribute = false;        // is one
  bool below_attribute = false;  // is one, or is below one
  bool keep = false;
};

// Finds each node's container as the nodes come in pre-order.
class ParentFinder {
 public:
  Place Next(std::size_t index, const v1::StateNode& node, const std::vector<Place>& before) {
    Place place;
    if (!open_.empty()) {
      Open& parent = open_.back();
      place.parent = parent.index;
      place.attribute = parent.left <= parent.attributes;  // children come first
      place.below_attribute = place.attribute || before[parent.index].below_attribute;
      --parent.left;
    }
    if (const std::uint64_t below = node.child_count() + node.attribute_count(); below != 0)
      open_.push_back({index, below, node.attribute_count()});
    while (!open_.empty() && open_.back().left == 0) open_.pop_back();
    return place;
  }

 private:
  struct Open {
    std::size_t index;
    std::uint64_t left;
    std::uint64_t attributes;
  };
  std::vector<Open> open_;
};

// Marks the leaves that were chosen.
absl::StatusOr<std::vector<Place>> ChooseLeaves(std::span<const v1::StateNode> nodes,
                                                std::span<const std::string> components,
                                                std::span<const std::string> include) {
  for (const std::string& glob : include) CKPT_RETURN_IF_ERROR(CheckGlob(glob));
  StateWalk walk;
  ParentFinder finder;
  std::vector<Place> places;
  places.reserve(nodes.size());
  bool some = false;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    CKPT_RETURN_IF_ERROR(walk.Next(nodes[i]));
    places.push_back(finder.Next(i, nodes[i], places));
    if (places[i].below_attribute || nodes[i].child_count() != 0) continue;
    const bool chosen = components.empty() || (i != 0 && std::find(components.begin(), components.end(),
                                                                   walk.component()) != components.end());
    places[i].keep = chosen && (include.empty() || MatchesAnyGlob(walk.path(), include));
    some |= places[i].keep;
  }
  if (!walk.Complete())
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_STATE", "the state's nodes are not one whole tree");
  for (const std::string& component : components) {
    const auto& known = walk.components();
    if (std::find(known.begin(), known.end(), component) == known.end())
      return MakeError(
          absl::StatusCode::kNotFound, "COMPONENT_NOT_FOUND",
          absl::StrCat("the checkpoint has no component ", component,
                       known.empty() ? "; it has none, as its top level is no mapping of a few keys: choose by path"
                                     : absl::StrCat("; it has: ", absl::StrJoin(known, ", "))));
  }
  if (!some && !include.empty())
    return MakeError(
        absl::StatusCode::kNotFound, "NOTHING_MATCHES",
        absl::StrCat("no path", components.empty() ? "" : " in the components that were chosen", " matches '",
                     absl::StrJoin(include, "' or '"), "'; a glob is for a whole path, as in '*.weight'"));
  return places;
}

}  // namespace

absl::StatusOr<std::vector<v1::StateNode>> SelectNodes(std::span<const v1::StateNode> nodes,
                                                       std::span<const std::string> components,
                                                       std::span<const std::string> include) {
  CKPT_ASSIGN_OR_RETURN(std::vector<Place> places, ChooseLeaves(nodes, components, include));
  places[0].keep = true;
  // What leads to a leaf, from the leaves up; then what belongs to what stays, from the root down.
  for (std::size_t i = nodes.size(); i-- > 1;)
    if (places[i].keep) places[places[i].parent].keep = true;
  for (std::size_t i = 1; i < nodes.size(); ++i)
    if (places[i].below_attribute) places[i].keep = places[places[i].parent].keep;

  std::vector<std::uint64_t> children(nodes.size());
  for (std::size_t i = 1; i < nodes.size(); ++i)
    if (places[i].keep && !places[i].attribute) ++children[places[i].parent];
  std::vector<v1::StateNode> out;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (!places[i].keep) continue;
    if (IsAllOrNothing(nodes[i].kind()) && children[i] != nodes[i].child_count())
      return MakeError(absl::StatusCode::kInvalidArgument, "CANNOT_SELECT",
                       "the globs take only some members of a list, tuple or set; widen them to all or none of it");
    out.push_back(nodes[i]);
    out.back().set_child_count(children[i]);
  }
  return out;
}

}  // namespace ckpt
