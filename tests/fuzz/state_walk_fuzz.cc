// A state tree's nodes, and the choice of some of them. The input is a RestoreBegin, whose components and globs choose,
// behind its length in two bytes, and a StatePart.
#include <string>
#include <vector>

#include "base/state_walk.h"
#include "base/utf8.h"
#include "ckpt/state.h"
#include "ckpt/v1/service.pb.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/oracle.h"
#include "tests/fuzz/parse_message.h"

namespace {

using ckpt::fuzz::Require;
using ckpt::v1::StateNode;

// True if the nodes are one whole tree.
bool Walk(const std::vector<StateNode>& nodes) {
  ckpt::StateWalk walk;
  for (const StateNode& node : nodes) {
    const bool was_complete = walk.Complete();
    if (!walk.Next(node).ok()) return false;
    Require(!was_complete, "nothing comes after the end");
    Require(walk.path().size() <= 4096 && ckpt::IsPrintableUtf8(walk.path()), "a path is short and can be printed");
    Require(walk.depth() <= ckpt::kMaxStateDepth, "no tree is deeper");
    Require(walk.path().starts_with(walk.component()), "a path begins with its component");
  }
  return walk.Complete();
}

void RequireSame(const std::vector<StateNode>& a, const std::vector<StateNode>& b, const char* promise) {
  Require(a.size() == b.size(), promise);
  for (std::size_t i = 0; i < a.size(); ++i) Require(a[i].SerializeAsString() == b[i].SerializeAsString(), promise);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ckpt::fuzz::Input input(data, size);
  ckpt::v1::RestoreBegin begin;
  const std::string_view choice = input.Piece();
  if (!ckpt::fuzz::ParseMessage(choice, begin)) return 0;
  ckpt::v1::StatePart part;
  const std::string_view tree = input.Rest();
  if (!ckpt::fuzz::ParseMessage(tree, part)) return 0;
  const std::vector<StateNode> nodes(part.nodes().begin(), part.nodes().end());
  const bool whole = Walk(nodes);

  const auto all = ckpt::SelectNodes(nodes, {}, {});
  Require(all.ok() == whole, "just whole trees are chosen from");
  if (!whole) return 0;
  RequireSame(*all, nodes, "to choose nothing is to choose all");
  const std::vector<std::string> components(begin.components().begin(), begin.components().end());
  const std::vector<std::string> include(begin.include().begin(), begin.include().end());
  const auto chosen = ckpt::SelectNodes(nodes, components, include);
  if (!chosen.ok()) return 0;
  Require(Walk(*chosen), "what was chosen is a whole tree");
  if (!components.empty()) return 0;  // one of which nothing was left is not there the second time
  const auto again = ckpt::SelectNodes(*chosen, {}, include);
  Require(again.ok(), "it can be chosen from again");
  RequireSame(*again, *chosen, "the same choice again changes nothing");
  return 0;
}
