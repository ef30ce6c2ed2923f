#include "storage/checkpoint_reads.h"

#include <limits>
#include <numeric>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "storage/store_fixture.h"

namespace ckpt::storage {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class Reads : public StoreTest {
 protected:
  v1::Checkpoint Saved(std::int64_t epoch, const std::map<std::string, double>& metrics = {}) {
    const auto checkpoint = Save(BeginOf("r", epoch), {{"m.a", "small"}}, metrics);
    CKPT_CHECK_OK(checkpoint.status());
    return *checkpoint;
  }

  // What a reference names, as EPOCH#VERSION, or why it names nothing.
  std::string Named(const std::string& reference, const std::string& domain = "") {
    const auto checkpoint = Resolve(store_->engine(), domain, reference);
    if (!checkpoint.ok()) return ReasonOf(checkpoint.status());
    return absl::StrCat(checkpoint->epoch(), "#", checkpoint->version());
  }

  // A run's row as a commit would write it, with so many checkpoints of epochs from 0 on.
  void PutRun(const std::string& domain, const std::string& name, std::uint64_t id, int checkpoints = 0) {
    CKPT_CHECK_OK(store_->engine().Transact(KvEngine::Durability::kLazy, [&](Transaction& txn) -> absl::Status {
      v1::RunRow row;
      row.set_id(id);
      row.mutable_run()->set_name(name);
      for (int epoch = 0; epoch < checkpoints; ++epoch) {
        v1::CheckpointRow checkpoint;
        checkpoint.mutable_checkpoint()->set_epoch(epoch);
        checkpoint.mutable_checkpoint()->set_version(1);
        CKPT_RETURN_IF_ERROR(PutRow(txn, keys::Checkpoint(id, epoch, 1), checkpoint));
      }
      return PutRow(txn, keys::Run(domain, name), row);
    }));
  }

  // The names of the runs, page after page, and how many were on each.
  std::vector<std::string> AllRuns(std::uint32_t page_size, std::vector<int>* pages = nullptr) {
    std::vector<std::string> out;
    v1::ListRunsRequest request;
    request.set_page_size(page_size);
    do {
      const v1::ListRunsResponse response = ListRuns(store_->engine(), request).value();
      for (const v1::Run& run : response.runs()) out.push_back(run.name());
      if (pages != nullptr) pages->push_back(response.runs_size());
      request.set_page_token(response.next_page_token());
    } while (!request.page_token().empty());
    return out;
  }

  std::vector<std::int64_t> AllEpochs(const std::string& run, std::uint32_t page_size) {
    std::vector<std::int64_t> out;
    v1::ListCheckpointsRequest request;
    request.set_run(run);
    request.set_page_size(page_size);
    do {
      const v1::ListCheckpointsResponse response = ListCheckpoints(store_->engine(), request).value();
      for (const v1::Checkpoint& checkpoint : response.checkpoints()) out.push_back(checkpoint.epoch());
      request.set_page_token(response.next_page_token());
    } while (!request.page_token().empty());
    return out;
  }
};

using Latest = Reads;
using BestReference = Reads;
using Paging = Reads;

TEST_F(Latest, IsTheOneCommittedLastNotTheHighestEpoch) {
  Saved(10);
  Saved(4);
  EXPECT_EQ(Named("r:latest"), "4#1");
  clock_.Advance(std::chrono::hours(-100));
  Saved(5);
  EXPECT_EQ(Named("r:latest"), "5#1") << "whatever the clock says";
  Saved(4);
  EXPECT_EQ(Named("r:latest"), "4#2");
}

TEST_F(Reads, AnEpochIsItsNewestVersion) {
  for (int i = 0; i < 11; ++i) Saved(3);
  EXPECT_EQ(Named("r@3"), "3#11");
  EXPECT_EQ(Named("r@3#2"), "3#2");
  EXPECT_EQ(Named("r@3#12"), "CHECKPOINT_NOT_FOUND");
}

TEST_F(Reads, EpochsOfAllSignsAreApart) {
  for (const std::int64_t epoch : {std::numeric_limits<std::int64_t>::min(), std::int64_t{-1}, std::int64_t{0},
                                   std::numeric_limits<std::int64_t>::max()}) {
    Saved(epoch);
    EXPECT_EQ(Named(absl::StrCat("r@", epoch)), absl::StrCat(epoch, "#1"));
  }
  EXPECT_THAT(AllEpochs("r", 0),
              ElementsAre(std::numeric_limits<std::int64_t>::min(), -1, 0, std::numeric_limits<std::int64_t>::max()));
}

TEST_F(Reads, WhatIsNotThereIsNotFound) {
  EXPECT_EQ(Named("r@1"), "RUN_NOT_FOUND");
  EXPECT_EQ(Named("r:best"), "RUN_NOT_FOUND");
  Saved(1);
  EXPECT_EQ(Named("r@2"), "CHECKPOINT_NOT_FOUND");
  EXPECT_EQ(Named("r@1#2"), "CHECKPOINT_NOT_FOUND");
  EXPECT_EQ(Named("r:final"), "CHECKPOINT_NOT_FOUND") << "no such tag";
  EXPECT_EQ(Named("R@1"), "RUN_NOT_FOUND") << "case counts";
  EXPECT_EQ(Named("r"), "BAD_REFERENCE");
}

TEST_F(BestReference, GoesByTheOnlyMetric) {
  Saved(1, {{"acc", 0.5}});
  Saved(2, {{"acc", 0.9}});
  Saved(3, {});
  EXPECT_EQ(Named("r:best"), "2#1");
  EXPECT_EQ(Named("r:best:acc"), "2#1");
}

TEST_F(BestReference, SaysWhichWayIsBetter) {
  Saved(1, {{"loss", 0.5}});
  Saved(2, {{"loss", 0.9}});
  EXPECT_EQ(Named("r:best"), "1#1");
  EXPECT_EQ(Named("r:best:loss:min"), "1#1");
  EXPECT_EQ(Named("r:best:loss:max"), "2#1");
}

TEST_F(BestReference, RanksTheNewestVersionsOnly) {
  Saved(1, {{"acc", 0.9}});
  Saved(2, {{"acc", 0.5}});
  Saved(1, {{"acc", 0.1}});
  EXPECT_EQ(Named("r:best"), "2#1");
  EXPECT_EQ(Named("r:best:acc:min"), "1#2");
}

TEST_F(BestReference, NeedsANameWithMoreThanOneMetric) {
  Saved(1, {{"acc", 0.5}, {"loss", 0.4}});
  Saved(2, {{"acc", 0.9}, {"loss", 0.6}});
  const absl::Status status = Resolve(store_->engine(), "", "r:best").status();
  EXPECT_THAT(status, HasReason("CHECKPOINT_NOT_FOUND"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("r:best:acc, r:best:loss"));
  EXPECT_EQ(Named("r:best:acc"), "2#1");
  EXPECT_EQ(Named("r:best:loss"), "1#1");
}

TEST_F(BestReference, ByThePrimaryMetricGoesTheWayThatARunSaid) {
  Saved(1, {{"acc", 0.5}, {"regret", 0.4}});
  v1::SaveBegin begin = BeginOf("r", 2);
  begin.set_primary_metric("regret:min");
  v1::Metric& metric = *begin.add_metrics();
  metric.set_name("regret");
  metric.set_value(0.6);
  ASSERT_THAT(Save(std::move(begin), {}).status(), IsOk());
  EXPECT_EQ(Named("r:best"), "1#1");
  EXPECT_EQ(Named("r:best:regret"), "1#1");
  EXPECT_EQ(Named("r:best:regret:max"), "2#1");
}

TEST_F(BestReference, OfNoNumberIsNotFound) {
  Saved(1);
  EXPECT_EQ(Named("r:best"), "CHECKPOINT_NOT_FOUND");
  Saved(2, {{"acc", std::numeric_limits<double>::quiet_NaN()}});
  EXPECT_EQ(Named("r:best"), "CHECKPOINT_NOT_FOUND");
  EXPECT_EQ(Named("r:best:f1"), "CHECKPOINT_NOT_FOUND");
  EXPECT_FALSE(GetRun(store_->engine(), "", "r")->has_best());
}

TEST_F(Reads, ARunSumsItsCheckpointsUp) {
  Saved(1, {{"acc", 0.9}});
  Saved(5, {{"acc", 0.5}});
  const v1::Run run = GetRun(store_->engine(), "default", "r").value();
  EXPECT_EQ(run.name(), "r");
  EXPECT_EQ(run.checkpoint_count(), 2U);
  EXPECT_EQ(run.latest_epoch(), 5);
  EXPECT_EQ(run.best().epoch(), 1);
  EXPECT_EQ(run.logical_bytes(), 10U);
}

TEST_F(Reads, RunsOfAnotherDomainAreUnseen) {
  v1::SaveBegin begin = BeginOf("secret", 1);
  begin.set_domain("other");
  ASSERT_THAT(Save(begin, {{"m.a", "x"}}).status(), IsOk());
  PutRun("defaul", "t", 100);
  PutRun("default2", "u", 101);
  EXPECT_THAT(AllRuns(0), IsEmpty());
  EXPECT_EQ(Named("secret@1"), "RUN_NOT_FOUND");
  EXPECT_EQ(Named("secret@1", "other"), "1#1");
  EXPECT_THAT(GetRun(store_->engine(), "", "secret").status(), HasReason("RUN_NOT_FOUND"));
  v1::ListRunsRequest request;
  request.set_domain("other");
  EXPECT_EQ(ListRuns(store_->engine(), request)->runs_size(), 1);
}

TEST_F(Reads, RefusesNamesThatAreNone) {
  EXPECT_EQ(Named("r@1", "no/domain"), "BAD_NAME");
  EXPECT_THAT(GetRun(store_->engine(), "", "").status(), HasReason("BAD_NAME"));
  EXPECT_THAT(GetRun(store_->engine(), "", std::string("r\0", 2)).status(), HasReason("BAD_NAME"));
  v1::ListRunsRequest request;
  request.set_domain("a b");
  EXPECT_THAT(ListRuns(store_->engine(), request).status(), HasReason("BAD_NAME"));
}

TEST_F(Paging, GivesEveryRunOnceInOrder) {
  std::vector<std::string> names;
  for (int i = 0; i < 257; ++i) {
    names.push_back(absl::StrCat("run", 1000 + i));
    PutRun("default", names.back(), static_cast<std::uint64_t>(i) + 1);
  }
  for (const std::uint32_t page_size : {0U, 1U, 64U, 256U, 257U, 258U, UINT32_MAX})
    EXPECT_EQ(AllRuns(page_size), names) << page_size;
  std::vector<int> pages;
  AllRuns(0, &pages);
  EXPECT_THAT(pages, ElementsAre(100, 100, 57));
  pages.clear();
  AllRuns(257, &pages);
  EXPECT_THAT(pages, ElementsAre(257)) << "no empty page at the end";
}

TEST_F(Paging, APageOfLargeRowsFitsIntoAMessage) {
  CKPT_CHECK_OK(store_->engine().Transact(KvEngine::Durability::kLazy, [&](Transaction& txn) -> absl::Status {
    for (int epoch = 0; epoch < 40; ++epoch) {
      v1::CheckpointRow row;
      row.mutable_checkpoint()->set_epoch(epoch);
      row.mutable_checkpoint()->set_version(1);
      row.mutable_checkpoint()->add_labels()->set_value(std::string(epoch == 20 ? 2'000'000 : 100'000, 'x'));
      CKPT_RETURN_IF_ERROR(PutRow(txn, keys::Checkpoint(1, epoch, 1), row));
    }
    return absl::OkStatus();
  }));
  PutRun("default", "r", 1);
  v1::ListCheckpointsRequest request;
  request.set_run("r");
  request.set_page_size(1000);
  std::vector<std::int64_t> epochs;
  do {
    const v1::ListCheckpointsResponse page = ListCheckpoints(store_->engine(), request).value();
    EXPECT_TRUE(page.ByteSizeLong() < 2'000'000 || page.checkpoints_size() == 1);
    for (const v1::Checkpoint& checkpoint : page.checkpoints()) epochs.push_back(checkpoint.epoch());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  std::vector<std::int64_t> expected(40);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(epochs, expected);
}

TEST_F(Paging, HasAThousandOnAPageAtMost) {
  for (int i = 0; i < 1001; ++i) PutRun("default", absl::StrCat("r", i), static_cast<std::uint64_t>(i) + 1);
  std::vector<int> pages;
  EXPECT_THAT(AllRuns(5000, &pages), SizeIs(1001));
  EXPECT_THAT(pages, ElementsAre(1000, 1));
}

TEST_F(Paging, GivesEveryCheckpointOfItsRunOnly) {
  PutRun("default", "before", 1, 3);
  PutRun("default", "r", 2, 250);
  PutRun("default", "after", 3, 3);
  std::vector<std::int64_t> epochs(250);
  for (std::size_t i = 0; i < epochs.size(); ++i) epochs[i] = static_cast<std::int64_t>(i);
  for (const std::uint32_t page_size : {0U, 1U, 125U, 250U, 1000U})
    EXPECT_EQ(AllEpochs("r", page_size), epochs) << page_size;
  v1::ListCheckpointsRequest request;
  request.set_run("missing");
  EXPECT_THAT(ListCheckpoints(store_->engine(), request).status(), HasReason("RUN_NOT_FOUND"));
}

TEST_F(Paging, GoesOnBehindARunThatIsGone) {
  for (const char* name : {"a", "b", "c"}) PutRun("default", name, 1);
  v1::ListRunsRequest request;
  request.set_page_size(1);
  request.set_page_token(ListRuns(store_->engine(), request)->next_page_token());
  CKPT_CHECK_OK(store_->engine().Transact(KvEngine::Durability::kLazy,
                                          [](Transaction& txn) { return txn.Delete(keys::Run("default", "a")); }));
  EXPECT_EQ(ListRuns(store_->engine(), request)->runs(0).name(), "b");
}

TEST_F(Paging, RefusesTokensThatAreNone) {
  PutRun("default", "r", 1, 3);
  for (const std::string& token : std::vector<std::string>{"!", "%%%%", "ab\n\xff", std::string("\0\0", 2),
                                                           absl::WebSafeBase64Escape(std::string(301, 'x'))}) {
    v1::ListRunsRequest runs;
    runs.set_page_token(token);
    EXPECT_THAT(ListRuns(store_->engine(), runs).status(), HasReason("BAD_PAGE_TOKEN")) << token;
    v1::ListCheckpointsRequest checkpoints;
    checkpoints.set_run("r");
    checkpoints.set_page_token(token);
    EXPECT_THAT(ListCheckpoints(store_->engine(), checkpoints).status(), HasReason("BAD_PAGE_TOKEN")) << token;
  }
}

TEST_F(Paging, AMadeUpTokenShowsNothingElse) {
  PutRun("default", "r", 2, 3);
  PutRun("other", "secret", 3, 3);
  for (const std::string& text :
       std::vector<std::string>{std::string("\0", 1), "\xff\xff", std::string(300, '\xff'), "zz"}) {
    v1::ListRunsRequest runs;
    runs.set_page_token(absl::WebSafeBase64Escape(text));
    const v1::ListRunsResponse response = ListRuns(store_->engine(), runs).value();
    for (const v1::Run& run : response.runs()) EXPECT_EQ(run.name(), "r");
    v1::ListCheckpointsRequest checkpoints;
    checkpoints.set_run("r");
    checkpoints.set_page_token(absl::WebSafeBase64Escape(text));
    EXPECT_LE(ListCheckpoints(store_->engine(), checkpoints)->checkpoints_size(), 3);
  }
}

}  // namespace
}  // namespace ckpt::storage
