#include "storage/reference.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/utf8.h"

namespace ckpt::storage {
namespace {

using Kind = Reference::Kind;

Reference Parsed(const std::string& text) {
  const auto reference = ParseReference(text);
  EXPECT_TRUE(reference.ok()) << text << ": " << reference.status();
  return reference.value_or(Reference());
}

TEST(Reference, NamesAnEpoch) {
  const Reference reference = Parsed("team/resnet50@12");
  EXPECT_EQ(reference.run, "team/resnet50");
  EXPECT_EQ(reference.kind, Kind::kEpoch);
  EXPECT_EQ(reference.epoch, 12);
  EXPECT_EQ(reference.version, std::nullopt) << "the newest";
}

TEST(Reference, AnEpochIsAnyInt64) {
  EXPECT_EQ(Parsed("r@0").epoch, 0);
  EXPECT_EQ(Parsed("r@-1").epoch, -1);
  EXPECT_EQ(Parsed("r@9223372036854775807").epoch, std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(Parsed("r@-9223372036854775808").epoch, std::numeric_limits<std::int64_t>::min());
}

TEST(Reference, NamesAVersion) {
  const Reference reference = Parsed("r@-3#2");
  EXPECT_EQ(reference.kind, Kind::kEpoch);
  EXPECT_EQ(reference.epoch, -3);
  EXPECT_EQ(reference.version, 2U);
  EXPECT_EQ(Parsed("r@1#18446744073709551615").version, UINT64_MAX);
}

TEST(Reference, NamesTheLatest) {
  EXPECT_EQ(Parsed("r:latest").kind, Kind::kLatest);
  EXPECT_EQ(Parsed("r:latest").run, "r");
}

TEST(Reference, NamesTheBest) {
  const Reference primary = Parsed("r:best");
  EXPECT_EQ(primary.kind, Kind::kBest);
  EXPECT_EQ(primary.metric, "");
  EXPECT_EQ(primary.lower_is_better, std::nullopt);
  const Reference metric = Parsed("r:best:val/acc@1");
  EXPECT_EQ(metric.kind, Kind::kBest);
  EXPECT_EQ(metric.metric, "val/acc@1");
  EXPECT_EQ(metric.lower_is_better, std::nullopt);
  EXPECT_EQ(Parsed("r:best:acc:min").lower_is_better, true);
  EXPECT_EQ(Parsed("r:best:acc:max").lower_is_better, false);
  EXPECT_EQ(Parsed("r:best:acc:max").metric, "acc");
  EXPECT_EQ(Parsed("r:best:min").metric, "min") << "a metric of that name";
  EXPECT_EQ(Parsed("r:best:min:min").metric, "min");
}

TEST(Reference, NamesATag) {
  const Reference reference = Parsed("r:v1.0-final");
  EXPECT_EQ(reference.kind, Kind::kTag);
  EXPECT_EQ(reference.tag, "v1.0-final");
  EXPECT_EQ(Parsed("r:bestever").tag, "bestever");
  EXPECT_EQ(Parsed("r:Latest").tag, "Latest");
  EXPECT_EQ(Parsed("r:x@1").tag, "x@1");
}

TEST(Reference, RefusesWhatNamesNothing) {
  for (const std::string& text : std::vector<std::string>{"",
                                                          "r",
                                                          "r@",
                                                          "r:",
                                                          "r@1#",
                                                          "r@#1",
                                                          "r@1#0",
                                                          "r@1#-1",
                                                          "r@1#1#1",
                                                          "r@1.0",
                                                          "r@1e3",
                                                          "r@0x10",
                                                          "r@one",
                                                          "r@1@2",
                                                          "r@1:best",
                                                          "r@9223372036854775808",
                                                          "r@-9223372036854775809",
                                                          "r@1#18446744073709551616",
                                                          "r@--1",
                                                          "r@-",
                                                          "r:best:",
                                                          "r:best::",
                                                          "r:best::min",
                                                          "r:best:acc:",
                                                          "r:best:acc:avg",
                                                          "r:best:acc:MIN",
                                                          "r:best:a:b:min",
                                                          "r:best:acc:min:max",
                                                          "r:latest:x",
                                                          "r:a:b"}) {
    const absl::Status status = ParseReference(text).status();
    EXPECT_EQ(ReasonOf(status), "BAD_REFERENCE") << text;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(Reference, RefusesTheNameOfNoRun) {
  for (const std::string& text : std::vector<std::string>{"@1", ":latest", "a b@1", "../r@1", "a//b:best", " r@1",
                                                          std::string(201, 'r') + "@1", std::string("r\0@1", 4)})
    EXPECT_EQ(ReasonOf(ParseReference(text).status()), "BAD_NAME") << text;
}

TEST(Reference, ANumberIsDigitsOnly) {
  for (const std::string& text :
       std::vector<std::string>{"r@ 1", "r@1 ", "r@1\n", "r@+1", "r@- 1", "r@1# 2", "r@1#+2", "r@1#2\t", "r@1 #2"})
    EXPECT_EQ(ReasonOf(ParseReference(text).status()), "BAD_REFERENCE") << text;
}

TEST(Reference, WhatIsNamedCanBeShown) {
  for (const std::string& text : std::vector<std::string>{"r:a\nb", "r:\xff", "r:best:a\nb", "r:best:\xff:min",
                                                          "r:best:\x1b[31m", std::string("r:best:a\0", 9)})
    EXPECT_EQ(ReasonOf(ParseReference(text).status()), "BAD_REFERENCE") << PrintableUtf8(text);
}

TEST(Reference, AMessageShowsTheStartOfAHostileTextOnly) {
  const absl::Status status = ParseReference("r@" + std::string(1'000'000, '\x01')).status();
  EXPECT_EQ(ReasonOf(status), "BAD_REFERENCE");
  EXPECT_LT(status.message().size(), 2000U);
  EXPECT_TRUE(IsPrintableUtf8(std::string(status.message())));
}

TEST(LowerIsBetter, GoesByTheEndOfTheName) {
  EXPECT_TRUE(LowerIsBetter("loss"));
  EXPECT_TRUE(LowerIsBetter("val_loss"));
  EXPECT_TRUE(LowerIsBetter("eval/loss"));
  EXPECT_FALSE(LowerIsBetter("loss_scale"));
  EXPECT_FALSE(LowerIsBetter("accuracy"));
  EXPECT_FALSE(LowerIsBetter("Loss")) << "as the Trainer has it";
  EXPECT_FALSE(LowerIsBetter(""));
}

}  // namespace
}  // namespace ckpt::storage
