#include "storage/names.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/utf8.h"

namespace ckpt::storage {
namespace {

TEST(RunName, TakesNamesThatNeedNoQuoting) {
  for (const std::string& name :
       std::vector<std::string>{"r", "0", "resnet50", "team/resnet50", "a.b_c-d/e", "R/", "a.", std::string(200, 'r')})
    EXPECT_TRUE(CheckRunName(name).ok()) << name;
}

TEST(RunName, RefusesAllOthers) {
  for (const std::string& name : std::vector<std::string>{"", ".r", "_r", "-r", "/r", "a..b", "a/../b", "a//b", "a b",
                                                          "a@1", "a:b", "a#1", "a\\b", "a*", "caf\xc3\xa9", "a\n",
                                                          "\xff", std::string("a\0b", 3), std::string(201, 'r')}) {
    const absl::Status status = CheckRunName(name);
    EXPECT_EQ(ReasonOf(status), "BAD_NAME") << PrintableUtf8(name);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(IsPrintableUtf8(std::string(status.message()))) << "the message shows the name";
  }
}

TEST(RunName, AMessageShowsNoMoreThanTheStartOfAHostileName) {
  EXPECT_LT(CheckRunName(std::string(1'000'000, '\xff')).message().size(), 600U);
}

TEST(Domain, IsAsARunsNameButShorterAndWithoutSlashes) {
  for (const std::string& name :
       std::vector<std::string>{"default", "a", "9", "team-1.x_y", "a..b", std::string(64, 'd')})
    EXPECT_TRUE(CheckDomain(name).ok()) << name;
  for (const std::string& name :
       std::vector<std::string>{"", "a/b", ".", "..", "-a", "a b", std::string("a\0", 2), std::string(65, 'd')})
    EXPECT_EQ(ReasonOf(CheckDomain(name)), "BAD_NAME") << name;
}

using Metrics = google::protobuf::RepeatedPtrField<v1::Metric>;
using Labels = google::protobuf::RepeatedPtrField<v1::Label>;

Metrics MetricsOf(const std::vector<std::string>& names) {
  Metrics out;
  for (const std::string& name : names) out.Add()->set_name(name);
  return out;
}

Labels LabelsOf(const std::vector<std::string>& keys) {
  Labels out;
  for (const std::string& key : keys) out.Add()->set_key(key);
  return out;
}

std::string WhyNot(auto list) { return ReasonOf(CheckAndSort(list)); }

TEST(Metrics, ComeInOrderOfTheirNames) {
  Metrics metrics = MetricsOf({"loss", "acc", "val/loss"});
  metrics[0].set_value(0.5);
  ASSERT_TRUE(CheckAndSort(metrics).ok());
  ASSERT_EQ(metrics.size(), 3);
  EXPECT_EQ(metrics[0].name(), "acc");
  EXPECT_EQ(metrics[1].name(), "loss");
  EXPECT_EQ(metrics[2].name(), "val/loss");
  EXPECT_EQ(metrics[1].value(), 0.5) << "each with its value";
}

TEST(Metrics, HaveNamesThatAReferenceCanHold) {
  EXPECT_EQ(WhyNot(MetricsOf({"top-1 accuracy (%) = \xc3\xa9", std::string(200, 'm')})), "");
  for (const std::string& name : std::vector<std::string>{"", "a:b", "a\n", "\x7f", "\xff", std::string(201, 'm')})
    EXPECT_EQ(WhyNot(MetricsOf({"ok", name})), "BAD_NAME") << PrintableUtf8(name);
}

TEST(Metrics, NoneStandsTwice) { EXPECT_EQ(WhyNot(MetricsOf({"a", "b", "a"})), "BAD_NAME"); }

std::vector<std::string> Numbered(int count) {
  std::vector<std::string> out;
  for (int i = 0; i < count; ++i) out.push_back(absl::StrCat("n", i));
  return out;
}

TEST(Metrics, AreAHundredAtMost) {
  EXPECT_EQ(WhyNot(MetricsOf({})), "");
  EXPECT_EQ(WhyNot(MetricsOf(Numbered(100))), "");
  EXPECT_EQ(WhyNot(MetricsOf(Numbered(101))), "TOO_MANY_ENTRIES");
}

TEST(Labels, FollowTheirOwnRules) {
  EXPECT_EQ(WhyNot(LabelsOf({"git:commit", "owner"})), "");
  for (const std::string& key : std::vector<std::string>{"", "a=b", "a\t", std::string(201, 'k')})
    EXPECT_EQ(WhyNot(LabelsOf({key})), "BAD_NAME") << PrintableUtf8(key);
  EXPECT_EQ(WhyNot(LabelsOf({"a", "a"})), "BAD_NAME");
  EXPECT_EQ(WhyNot(LabelsOf(Numbered(101))), "TOO_MANY_ENTRIES");
}

TEST(Labels, LimitTheirValues) {
  Labels labels = LabelsOf({"b", "a"});
  labels[0].set_value(std::string(4096, 'v'));
  ASSERT_TRUE(CheckAndSort(labels).ok());
  EXPECT_EQ(labels[0].key(), "a");
  labels[1].set_value(std::string(4097, 'v'));
  EXPECT_EQ(WhyNot(labels), "TOO_LARGE");
}

}  // namespace
}  // namespace ckpt::storage
