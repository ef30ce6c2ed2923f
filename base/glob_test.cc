#include "base/glob.h"

#include <gtest/gtest.h>

#include <string>

#include "base/status.h"

namespace ckpt {
namespace {

bool Matches(const std::string& glob, const std::string& path) {
  EXPECT_TRUE(CheckGlob(glob).ok()) << glob;
  return MatchesAnyGlob(path, std::span(&glob, 1));
}

TEST(Glob, AStarStandsForAnyCharactersDotsToo) {
  EXPECT_TRUE(Matches("*", ""));
  EXPECT_TRUE(Matches("*", "model.fc.weight"));
  EXPECT_TRUE(Matches("*.weight", "model.fc.weight"));
  EXPECT_TRUE(Matches("*", ".hidden"));
  EXPECT_TRUE(Matches("model*weight", "model/fc.weight"));
  EXPECT_FALSE(Matches("*.weight", "model.fc.bias"));
  EXPECT_FALSE(Matches("*.weight", "model.fc.weights"));
}

TEST(Glob, MatchesTheWholePath) {
  EXPECT_TRUE(Matches("model", "model"));
  EXPECT_FALSE(Matches("model", "model.fc"));
  EXPECT_FALSE(Matches("fc", "model.fc"));
  EXPECT_FALSE(Matches("", "model"));
  EXPECT_TRUE(Matches("", ""));
}

TEST(Glob, AQuestionMarkStandsForOneCharacter) {
  EXPECT_TRUE(Matches("layer.?.w", "layer.3.w"));
  EXPECT_FALSE(Matches("layer.?.w", "layer.10.w"));
  EXPECT_FALSE(Matches("?", ""));
}

TEST(Glob, BracketsStandForOneOfASet) {
  EXPECT_TRUE(Matches("layer.[0-3].w", "layer.2.w"));
  EXPECT_FALSE(Matches("layer.[0-3].w", "layer.4.w"));
  EXPECT_TRUE(Matches("layer.[!0-3].w", "layer.4.w"));
  EXPECT_FALSE(Matches("layer.[!0-3].w", "layer.3.w"));
  EXPECT_TRUE(Matches("a[]]b", "a]b"));
  EXPECT_TRUE(Matches("a[b", "a[b")) << "a bracket that never closes is itself";
}

TEST(Glob, AnyOfSeveralIsEnough) {
  const std::string globs[] = {"model.*", "optimizer.*"};
  EXPECT_TRUE(MatchesAnyGlob("optimizer.state", globs));
  EXPECT_FALSE(MatchesAnyGlob("rng", globs));
  EXPECT_FALSE(MatchesAnyGlob("rng", {}));
}

TEST(CheckGlob, LimitsLengthAndStars) {
  EXPECT_TRUE(CheckGlob(std::string(256, 'a')).ok());
  EXPECT_EQ(ReasonOf(CheckGlob(std::string(257, 'a'))), "BAD_GLOB");
  EXPECT_TRUE(CheckGlob("a*a*a*a*a*a*a*a*").ok());
  EXPECT_EQ(ReasonOf(CheckGlob("*a*a*a*a*a*a*a*a*")), "BAD_GLOB");
  EXPECT_EQ(ReasonOf(CheckGlob(std::string("a\0b", 3))), "BAD_GLOB");
}

// With stars that are tried one inside the other this takes longer than any test may.
TEST(Glob, AHostileGlobIsDoneWithSoon) {
  const std::string path(4096, 'a');
  EXPECT_FALSE(Matches("*a*a*a*a*a*a*a*ab", path));
  EXPECT_FALSE(Matches("*?a*?a*?a*?a*?a*?a*?a*?ab", path));
  EXPECT_FALSE(Matches("*[a-z]*[a-z]*[a-z]*[a-z]*[a-z]*[a-z]*[a-z]*[!a-z]", path));
  const std::string brackets = "*[a" + std::string(120, '[') + "*[a" + std::string(120, '[');
  EXPECT_FALSE(Matches(brackets, path));
}

}  // namespace
}  // namespace ckpt
