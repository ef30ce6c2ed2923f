#include "base/state_walk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "base/state_node_fixture.h"
#include "base/status.h"

namespace ckpt {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Outcome {
  absl::Status status;  // of the first node that was refused
  std::vector<std::string> paths;
  bool complete = false;
};

Outcome Walk(const std::vector<v1::StateNode>& nodes) {
  StateWalk walk;
  Outcome out;
  for (const v1::StateNode& node : nodes) {
    out.status = walk.Next(node);
    if (!out.status.ok()) break;
    out.paths.push_back(walk.path());
  }
  out.complete = out.status.ok() && walk.Complete();
  return out;
}

// The reason for which the last of the nodes, and none before it, is refused; "" if none is.
std::string WhyNotLast(const std::vector<v1::StateNode>& nodes) {
  const Outcome outcome = Walk(nodes);
  if (!outcome.status.ok()) {
    EXPECT_EQ(outcome.paths.size(), nodes.size() - 1) << outcome.status;
    EXPECT_EQ(outcome.status.code(), absl::StatusCode::kInvalidArgument);
  }
  return ReasonOf(outcome.status);
}

constexpr char kBad[] = "BAD_STATE";

TEST(StateWalk, GivesEachNodesPlace) {
  const Outcome outcome = Walk({
      Node(v1::NODE_KIND_DICT, 2),
      At("model", Node(v1::NODE_KIND_ORDERED_DICT, 1, 1)),
      At("fc.weight", Node(v1::NODE_KIND_TENSOR)),
      At("_metadata", Node(v1::NODE_KIND_DICT)),
      At("optimizer", Node(v1::NODE_KIND_LIST, 2)),
      Value(Int(1)),
      Node(v1::NODE_KIND_DICT, 1),
      At(Int(-7), Value(Str("x"))),
  });
  EXPECT_TRUE(outcome.complete) << outcome.status;
  EXPECT_THAT(outcome.paths, ElementsAre("", "model", "model.fc.weight", "model.@_metadata", "optimizer", "optimizer.0",
                                         "optimizer.1", "optimizer.1.-7"));
}

TEST(StateWalk, KnowsComponentsAndDepth) {
  StateWalk walk;
  ASSERT_TRUE(walk.Next(Node(v1::NODE_KIND_ORDERED_DICT, 2, 1)).ok());
  EXPECT_EQ(walk.depth(), 0U);
  EXPECT_EQ(walk.component(), "");
  ASSERT_TRUE(walk.Next(At("b", Node(v1::NODE_KIND_LIST, 1))).ok());
  ASSERT_TRUE(walk.Next(Value(Int(1))).ok());
  EXPECT_EQ(walk.depth(), 2U);
  EXPECT_EQ(walk.component(), "b");
  ASSERT_TRUE(walk.Next(At("a", Value(Int(1)))).ok());
  EXPECT_EQ(walk.depth(), 1U);
  EXPECT_FALSE(walk.Complete());
  ASSERT_TRUE(walk.Next(At("note", Value(Int(1)))).ok());
  EXPECT_EQ(walk.component(), "") << "an attribute of the root is in none";
  EXPECT_TRUE(walk.Complete());
  EXPECT_THAT(walk.components(), ElementsAre("b", "a")) << "in order, and no attributes";
}

TEST(StateWalk, ALeafMayBeTheRoot) {
  EXPECT_TRUE(Walk({Node(v1::NODE_KIND_TENSOR)}).complete);
  EXPECT_TRUE(Walk({Node(v1::NODE_KIND_DICT)}).complete);
  EXPECT_FALSE(Walk({}).complete);
}

TEST(StateWalk, AFlatStateHasNoComponents) {
  for (const std::uint64_t keys : {kMaxComponents, kMaxComponents + 1}) {
    StateWalk walk;
    ASSERT_TRUE(walk.Next(Node(v1::NODE_KIND_DICT, keys)).ok());
    for (std::uint64_t i = 0; i < keys; ++i) ASSERT_TRUE(walk.Next(At(std::to_string(i), Value(Int(1)))).ok());
    EXPECT_TRUE(walk.Complete());
    EXPECT_EQ(walk.components().size(), keys == kMaxComponents ? kMaxComponents : 0);
    EXPECT_EQ(walk.component(), keys == kMaxComponents ? "63" : "");
  }
}

TEST(StateWalk, ASequencesChildrenHaveNoComponentNames) {
  StateWalk walk;
  ASSERT_TRUE(walk.Next(Node(v1::NODE_KIND_LIST, 1)).ok());
  ASSERT_TRUE(walk.Next(Value(Int(1))).ok());
  EXPECT_EQ(walk.component(), "");
  EXPECT_TRUE(walk.components().empty());
}

TEST(StateWalk, RefusesUnknownKinds) {
  EXPECT_EQ(WhyNotLast({Node(v1::NODE_KIND_UNSPECIFIED)}), kBad);
  EXPECT_EQ(WhyNotLast({Node(static_cast<v1::NodeKind>(24))}), kBad);
  EXPECT_EQ(WhyNotLast({Node(static_cast<v1::NodeKind>(-1))}), kBad);
}

TEST(StateWalk, OnlyContainersHaveChildren) {
  for (int value = v1::NodeKind_MIN + 1; value <= v1::NodeKind_MAX; ++value) {
    const auto kind = static_cast<v1::NodeKind>(value);
    const bool container =
        (value >= v1::NODE_KIND_DICT && value <= v1::NODE_KIND_FROZENSET) || kind == v1::NODE_KIND_SIZE;
    EXPECT_EQ(WhyNotLast({Node(kind, 1)}), container ? "" : kBad) << v1::NodeKind_Name(kind);
  }
}

TEST(StateWalk, OnlyOrderedDictsAndNamespacesHaveAttributes) {
  for (int value = v1::NodeKind_MIN + 1; value <= v1::NodeKind_MAX; ++value) {
    const auto kind = static_cast<v1::NodeKind>(value);
    const bool may = kind == v1::NODE_KIND_ORDERED_DICT || kind == v1::NODE_KIND_NAMESPACE;
    EXPECT_EQ(WhyNotLast({Node(kind, 0, 1)}), may ? "" : kBad) << v1::NodeKind_Name(kind);
  }
}

TEST(StateWalk, KindsHaveTheValuesAndNamesThatTheyNeed) {
  v1::Scalar bytes;
  bytes.set_bytes_value("b");
  for (int value = v1::NodeKind_MIN + 1; value <= v1::NodeKind_MAX; ++value) {
    const auto kind = static_cast<v1::NodeKind>(value);
    const bool wants_bytes =
        kind == v1::NODE_KIND_BYTEARRAY || kind == v1::NODE_KIND_NUMPY_SCALAR || kind == v1::NODE_KIND_OPAQUE;
    const bool wants_str = kind == v1::NODE_KIND_PATH || kind == v1::NODE_KIND_TORCH_VERSION;
    const bool any = kind == v1::NODE_KIND_SCALAR;
    const auto reason = [&](const v1::Scalar* scalar, bool named) {
      v1::StateNode node = Node(kind);
      if (scalar != nullptr) *node.mutable_value() = *scalar;
      if (named) node.set_type_name("name");
      return WhyNotLast({node});
    };
    const v1::Scalar text = Str("s");
    const v1::Scalar unset;
    EXPECT_EQ(reason(&bytes, true), any || wants_bytes ? "" : kBad) << v1::NodeKind_Name(kind);
    EXPECT_EQ(reason(&text, true), any || wants_str ? "" : kBad) << v1::NodeKind_Name(kind);
    EXPECT_EQ(reason(&unset, true), kBad) << v1::NodeKind_Name(kind);
    EXPECT_EQ(reason(nullptr, true), any || wants_bytes || wants_str ? kBad : "") << v1::NodeKind_Name(kind);
  }
}

TEST(StateWalk, KindsThatAreNamedHaveAName) {
  for (const auto kind : {v1::NODE_KIND_DTYPE, v1::NODE_KIND_DEVICE, v1::NODE_KIND_LAYOUT, v1::NODE_KIND_MEMORY_FORMAT,
                          v1::NODE_KIND_NUMPY_DTYPE, v1::NODE_KIND_NUMPY_ARRAY}) {
    EXPECT_EQ(WhyNotLast({Node(kind)}), kBad) << v1::NodeKind_Name(kind);
    v1::StateNode named = Node(kind);
    named.set_type_name("name");
    EXPECT_EQ(WhyNotLast({named}), "") << v1::NodeKind_Name(kind);
  }
  EXPECT_EQ(WhyNotLast({Node(v1::NODE_KIND_DEFAULT_DICT)}), "") << "its factory may be None";
}

TEST(StateWalk, OnlyMappingsChildrenAndAttributesHaveKeys) {
  EXPECT_EQ(WhyNotLast({At("k", Node(v1::NODE_KIND_DICT))}), kBad);
  EXPECT_EQ(WhyNotLast({Node(v1::NODE_KIND_DICT, 1), Value(Int(1))}), kBad);
  EXPECT_EQ(WhyNotLast({Node(v1::NODE_KIND_DICT, 1), At(v1::Scalar(), Value(Int(1)))}), kBad);
  EXPECT_EQ(WhyNotLast({Node(v1::NODE_KIND_LIST, 1), At("k", Value(Int(1)))}), kBad);
  EXPECT_EQ(WhyNotLast({Node(v1::NODE_KIND_NAMESPACE, 0, 1), Value(Int(1))}), kBad);
  EXPECT_EQ(WhyNotLast({Node(v1::NODE_KIND_NAMESPACE, 0, 1), At(Int(1), Value(Int(1)))}), kBad) << "no str";
}

TEST(StateWalk, SetsHoldScalarsAndSizesIntegers) {
  EXPECT_EQ(WhyNotLast({Node(v1::NODE_KIND_SET, 1), Value(Int(1))}), "");
  EXPECT_EQ(WhyNotLast({Node(v1::NODE_KIND_SET, 1), Node(v1::NODE_KIND_TUPLE)}), kBad);
  EXPECT_EQ(WhyNotLast({Node(v1::NODE_KIND_FROZENSET, 1), Node(v1::NODE_KIND_TENSOR)}), kBad);
  EXPECT_EQ(WhyNotLast({Node(v1::NODE_KIND_SIZE, 1), Value(Int(1))}), "");
  EXPECT_EQ(WhyNotLast({Node(v1::NODE_KIND_SIZE, 1), Value(Bool(true))}), kBad);
  EXPECT_EQ(WhyNotLast({Node(v1::NODE_KIND_SIZE, 1), Node(v1::NODE_KIND_TENSOR)}), kBad);
}

TEST(StateWalk, AKeyStandsOnce) {
  for (const v1::Scalar& key : {Str("k"), Int(1), Float(std::numeric_limits<double>::quiet_NaN()), Bool(false)})
    EXPECT_EQ(WhyNotLast({Node(v1::NODE_KIND_DICT, 2), At(key, Value(Int(1))), At(key, Value(Int(2)))}), kBad)
        << key.ShortDebugString();
}

TEST(StateWalk, KeysOfOtherTypesAreOtherKeys) {
  v1::Scalar bytes;
  bytes.set_bytes_value("1");
  v1::Scalar none;
  none.set_none(true);
  const Outcome outcome =
      Walk({Node(v1::NODE_KIND_DICT, 6), At(Int(1), Value(Int(1))), At(Bool(true), Value(Int(2))),
            At(Float(1.0), Value(Int(3))), At("1", Value(Int(4))), At(bytes, Value(Int(5))), At(none, Value(Int(6)))});
  EXPECT_TRUE(outcome.complete) << outcome.status;
  EXPECT_THAT(outcome.paths, ElementsAre("", "1", "True", "1", "1", "bytes:31", "None"));
}

TEST(StateWalk, AValueHasOneForm) {
  const auto reason = [](const v1::Scalar& scalar) {
    const std::string value = WhyNotLast({Value(scalar)});
    EXPECT_EQ(WhyNotLast({Node(v1::NODE_KIND_DICT, 1), At(scalar, Value(Int(1)))}), value) << "as a key";
    return value;
  };
  const auto big = [&](const std::string& bytes) {
    v1::Scalar scalar;
    scalar.set_big_int(bytes);
    return reason(scalar);
  };
  v1::Scalar none;
  none.set_none(false);
  EXPECT_EQ(reason(none), kBad);
  EXPECT_EQ(big(std::string(8, '\x7f') + '\x01'), "");
  EXPECT_EQ(big(std::string(8, '\x80') + '\0'), "") << "2^63 and more need the ninth byte";
  EXPECT_EQ(big(std::string(8, '\x7f') + '\xff'), "");
  EXPECT_EQ(big(""), kBad);
  EXPECT_EQ(big("\x01"), kBad) << "an int_value";
  EXPECT_EQ(big(std::string(8, '\x7f') + '\0'), kBad) << "a byte too many";
  EXPECT_EQ(big(std::string(8, '\x80') + '\xff'), kBad);
}

TEST(StateWalk, OneKeyInTwoMappingsIsNoneTwice) {
  EXPECT_TRUE(Walk({Node(v1::NODE_KIND_DICT, 2), At("a", Node(v1::NODE_KIND_DICT, 1)), At("k", Value(Int(1))),
                    At("b", Node(v1::NODE_KIND_DICT, 1)), At("k", Value(Int(2)))})
                  .complete);
}

TEST(StateWalk, AnAttributeMayBeCalledAsAKeyIsButStandsOnce) {
  EXPECT_TRUE(Walk({Node(v1::NODE_KIND_ORDERED_DICT, 1, 1), At("k", Value(Int(1))), At("k", Value(Int(2)))}).complete);
  EXPECT_EQ(WhyNotLast({Node(v1::NODE_KIND_ORDERED_DICT, 1, 2), At("k", Value(Int(1))), At("a", Value(Int(2))),
                        At("a", Value(Int(3)))}),
            kBad);
}

TEST(StateWalk, NothingComesAfterTheEnd) {
  EXPECT_EQ(WhyNotLast({Value(Int(1)), Value(Int(2))}), kBad);
  EXPECT_EQ(WhyNotLast({Node(v1::NODE_KIND_LIST, 1), Value(Int(1)), Value(Int(2))}), kBad);
}

TEST(StateWalk, ATreeThatAnnouncesMoreIsIncomplete) {
  EXPECT_FALSE(Walk({Node(v1::NODE_KIND_LIST, 2), Value(Int(1))}).complete);
  EXPECT_FALSE(Walk({Node(v1::NODE_KIND_NAMESPACE, 0, 1)}).complete);
  EXPECT_FALSE(Walk({Node(v1::NODE_KIND_LIST, UINT64_MAX), Value(Int(1))}).complete);
}

TEST(StateWalk, CountsThatAddUpToZeroAreNotNothing) {
  const std::uint64_t half = std::uint64_t{1} << 63;
  EXPECT_FALSE(Walk({Node(v1::NODE_KIND_ORDERED_DICT, half, half)}).complete);
  EXPECT_FALSE(Walk({Node(v1::NODE_KIND_ORDERED_DICT, UINT64_MAX, 1)}).complete);
}

std::vector<v1::StateNode> Nested(std::size_t levels) {
  std::vector<v1::StateNode> nodes(levels, Node(v1::NODE_KIND_LIST, 1));
  nodes.push_back(Value(Int(1)));
  return nodes;
}

TEST(StateWalk, TakesAThousandLevels) {
  const Outcome outcome = Walk(Nested(kMaxStateDepth));
  EXPECT_TRUE(outcome.complete) << outcome.status;
}

TEST(StateWalk, RefusesTheNextLevel) {
  const Outcome outcome = Walk(Nested(10'000));
  EXPECT_EQ(ReasonOf(outcome.status), "STATE_TOO_DEEP");
  EXPECT_EQ(outcome.paths.size(), kMaxStateDepth);
  EXPECT_LT(outcome.status.message().size(), 300U);
}

TEST(StateWalk, PathsThatGrowTooLongAreRefused) {
  const std::string key(2000, 'k');
  EXPECT_EQ(WhyNotLast({Node(v1::NODE_KIND_DICT, 1), At(std::string(4096, 'k'), Value(Int(1)))}), "");
  EXPECT_EQ(WhyNotLast({Node(v1::NODE_KIND_DICT, 1), At(std::string(4097, 'k'), Value(Int(1)))}), kBad);
  EXPECT_EQ(WhyNotLast({Node(v1::NODE_KIND_DICT, 1), At(key, Node(v1::NODE_KIND_DICT, 1)),
                        At(key, Node(v1::NODE_KIND_DICT, 1)), At(key, Value(Int(1)))}),
            kBad);
}

TEST(StateWalk, AnErrorNamesThePlace) {
  const Outcome outcome = Walk(
      {Node(v1::NODE_KIND_DICT, 1), At("model", Node(v1::NODE_KIND_DICT, 1)), At("a\nb", Node(v1::NODE_KIND_SCALAR))});
  EXPECT_THAT(std::string(outcome.status.message()), HasSubstr("model.a\\x0ab: a scalar has no value"));
}

TEST(HasTensor, IsTrueOfThreeKinds) {
  int count = 0;
  for (int value = v1::NodeKind_MIN; value <= v1::NodeKind_MAX; ++value)
    count += HasTensor(static_cast<v1::NodeKind>(value));
  EXPECT_EQ(count, 3);
  EXPECT_TRUE(HasTensor(v1::NODE_KIND_TENSOR) && HasTensor(v1::NODE_KIND_PARAMETER) &&
              HasTensor(v1::NODE_KIND_NUMPY_ARRAY));
}

}  // namespace
}  // namespace ckpt
