#include "base/glob.h"

#include <fnmatch.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <random>
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
  EXPECT_TRUE(Matches("a[^b-]", "a."));
  EXPECT_FALSE(Matches("a[^b-]", "a-"));
  EXPECT_FALSE(Matches("a[b]", "a"));
  EXPECT_TRUE(Matches("a[b", "a[b")) << "a bracket that never closes is itself";
}

TEST(Glob, CharactersAreThoseOfUtf8InAnyLocale) {
  EXPECT_TRUE(Matches("layer.?.w", "layer.\xc3\xa9.w"));
  EXPECT_FALSE(Matches("layer.??.w", "layer.\xc3\xa9.w"));
  EXPECT_TRUE(Matches("*.[\xc3\xa0-\xe2\x82\xac]", "x.\xc3\xa9"));
  EXPECT_TRUE(Matches("[!a-z]", "\xf0\x9f\x98\x80"));
  EXPECT_FALSE(Matches("[\xc3\xa9]", "\xc3\xa8"));
  EXPECT_TRUE(Matches("*\xa9", "\xc3\xa9\xa9")) << "malformed bytes are characters of their own";
  EXPECT_FALSE(Matches("*\xa9", "\xc3\xa9"));
}

TEST(Glob, ABackslashTakesTheNextCharacterAsItIs) {
  EXPECT_TRUE(Matches("a\\*b", "a*b"));
  EXPECT_FALSE(Matches("a\\*b", "a.b"));
  EXPECT_TRUE(Matches("\\[a\\]", "[a]"));
  EXPECT_TRUE(Matches("[\\]]", "]"));
  EXPECT_TRUE(Matches("*\\\\x0a", "key\\x0a"));
  EXPECT_TRUE(Matches("a\\", "a\\")) << "at the end it is itself";
}

TEST(Glob, AnyOfSeveralIsEnough) {
  const std::string globs[] = {"model.*", "optimizer.*"};
  EXPECT_TRUE(MatchesAnyGlob("optimizer.state", globs));
  EXPECT_FALSE(MatchesAnyGlob("rng", globs));
  EXPECT_FALSE(MatchesAnyGlob("rng", {}));
}

TEST(Glob, AgreesWithFnmatchOnAscii) {
  const char* given = std::getenv("CKPT_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::cout << "CKPT_SEED=" << seed << std::endl;
  std::mt19937_64 random(seed);
  const char* const parts[] = {"a", "b", ".", "*", "?", "[ab]", "[!a]", "[a-c]", "\\a", "[]b]"};
  int matches = 0;
  for (int round = 0; round < 100'000; ++round) {
    std::string glob;
    for (std::uint64_t i = random() % 7; i != 0; --i) glob += parts[random() % 10];
    std::string path(random() % 7, '\0');
    for (char& c : path) c = "abc.]"[random() % 5];
    const bool expected = fnmatch(glob.c_str(), path.c_str(), 0) == 0;
    ASSERT_EQ(MatchesAnyGlob(path, std::span(&glob, 1)), expected) << glob << " on " << path;
    matches += expected;
  }
  EXPECT_GT(matches, 1000);
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
  EXPECT_FALSE(Matches("*" + std::string(254, '[') + "x", std::string(4096, '[')));
}

}  // namespace
}  // namespace ckpt
