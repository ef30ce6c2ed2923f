#include "storage/run_summary.h"

#include <cmath>
#include <cstdlib>
#include <iostream>
#include <limits>
#include <random>

#include "storage/reference.h"
#include "storage/store_fixture.h"

namespace ckpt::storage {
namespace {

using Metrics = std::map<std::string, double>;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::uint64_t kRunId = 7;

// An epoch and a value, or nothing.
using Found = std::optional<std::pair<std::int64_t, double>>;

Found FoundOf(const std::optional<v1::Best>& best) {
  if (!best.has_value()) return std::nullopt;
  return std::pair(best->epoch(), best->value());
}

class Summary : public StoreTest {
 protected:
  Summary() {
    run_.set_id(kRunId);
    run_.mutable_run()->set_name("r");
  }

  // Adds the next version of the epoch, as a commit does.
  v1::Checkpoint Add(std::int64_t epoch, const Metrics& metrics, const std::string& primary_metric = "") {
    v1::CheckpointRow row;
    v1::Checkpoint& checkpoint = *row.mutable_checkpoint();
    checkpoint.set_run("r");
    checkpoint.set_epoch(epoch);
    checkpoint.set_version(++versions_[epoch]);
    checkpoint.set_logical_bytes(100);
    checkpoint.set_new_bytes(10);
    checkpoint.mutable_create_time()->set_seconds(++commits_);
    for (const auto& [name, value] : metrics) {
      v1::Metric& metric = *checkpoint.add_metrics();
      metric.set_name(name);
      metric.set_value(value);
    }
    const v1::RunRow before = run_;
    CKPT_CHECK_OK(store_->engine().Transact(KvEngine::Durability::kLazy, [&](Transaction& txn) -> absl::Status {
      run_ = before;
      CKPT_RETURN_IF_ERROR(PutRow(txn, keys::Checkpoint(kRunId, epoch, checkpoint.version()), row));
      return AddToSummary(txn, checkpoint, primary_metric, run_);
    }));
    return checkpoint;
  }

  // By a look at all checkpoints.
  std::optional<v1::Best> BestBy(const std::string& metric, bool lower_is_better) {
    std::optional<v1::Best> best;
    CKPT_CHECK_OK(store_->engine().Transact(KvEngine::Durability::kLazy, [&](Transaction& txn) -> absl::Status {
      CKPT_ASSIGN_OR_RETURN(best, FindBest(txn, kRunId, {metric, lower_is_better}));
      return absl::OkStatus();
    }));
    return best;
  }

  // As the run's row has it, by its primary metric; and a look at all finds the same.
  Found Kept() {
    std::optional<v1::Best> kept;
    if (run_.run().has_best()) kept = run_.run().best();
    if (const auto ranking = PrimaryMetric(run_); ranking.has_value()) {
      const auto found = BestBy(ranking->metric, ranking->lower_is_better.value_or(LowerIsBetter(ranking->metric)));
      EXPECT_EQ(kept.has_value(), found.has_value());
      EXPECT_EQ(kept.value_or(v1::Best()).SerializeAsString(), found.value_or(v1::Best()).SerializeAsString());
    }
    return FoundOf(kept);
  }

  v1::RunRow run_;
  std::map<std::int64_t, std::uint64_t> versions_;
  std::int64_t commits_ = 0;
};

using Best = Summary;

TEST_F(Summary, CountsWhatIsAdded) {
  Add(10, {});
  Add(4, {{"loss", 1}});
  EXPECT_EQ(run_.run().checkpoint_count(), 2U);
  EXPECT_EQ(run_.run().latest_epoch(), 4) << "the one committed last";
  EXPECT_EQ(run_.run().logical_bytes(), 200U);
  EXPECT_EQ(run_.run().stored_bytes(), 20U);
  EXPECT_EQ(run_.run().update_time().seconds(), 2);
}

TEST_F(Summary, ThePrimaryMetricIsTheOnlyOne) {
  EXPECT_EQ(PrimaryMetric(run_), std::nullopt);
  Add(1, {});
  EXPECT_EQ(PrimaryMetric(run_), std::nullopt);
  Add(2, {{"acc", 0.5}});
  EXPECT_EQ(PrimaryMetric(run_), (Ranking{"acc", std::nullopt}));
  Add(3, {{"acc", 0.6}});
  EXPECT_EQ(PrimaryMetric(run_), (Ranking{"acc", std::nullopt}));
  Add(4, {{"a", 1}});
  EXPECT_EQ(PrimaryMetric(run_), std::nullopt);
  EXPECT_THAT(run_.metrics(), testing::ElementsAre("a", "acc"));
}

TEST_F(Summary, ThePrimaryMetricIsWhatASaveNamedLast) {
  Add(1, {{"acc", 0.5}, {"val_loss", 0.3}}, "acc");
  EXPECT_EQ(Kept(), Found({1, 0.5}));
  Add(2, {{"acc", 0.7}, {"val_loss", 0.4}});
  EXPECT_EQ(PrimaryMetric(run_), (Ranking{"acc", std::nullopt})) << "it stays";
  EXPECT_EQ(Kept(), Found({2, 0.7}));
  Add(3, {{"acc", 0.6}}, "acc:min");
  EXPECT_EQ(Kept(), Found({1, 0.5})) << "the other way round: among all";
  Add(4, {}, "val_loss");
  EXPECT_EQ(Kept(), Found({1, 0.3}));
  Add(5, {}, "top5");
  EXPECT_EQ(Kept(), std::nullopt);
}

TEST_F(Summary, AMetricThatComesLateIsLookedForInAllCheckpoints) {
  Add(1, {{"a", 1}, {"b", 5}});
  EXPECT_EQ(Kept(), std::nullopt);
  Add(2, {{"b", 3}}, "b");
  EXPECT_EQ(Kept(), Found({1, 5}));
}

TEST_F(Best, IsHigherUnlessTheMetricIsALoss) {
  Add(1, {{"acc", 0.5}});
  Add(2, {{"acc", 0.7}});
  Add(3, {{"acc", 0.6}});
  EXPECT_EQ(Kept(), Found({2, 0.7}));
}

TEST_F(Best, OfALossIsLower) {
  Add(1, {{"val_loss", 0.5}});
  Add(2, {{"val_loss", 0.3}});
  Add(3, {{"val_loss", 0.4}});
  EXPECT_EQ(Kept(), Found({2, 0.3}));
}

TEST_F(Best, CanBeAskedTheOtherWayRound) {
  Add(1, {{"acc", 0.5}});
  Add(2, {{"acc", 0.7}});
  EXPECT_EQ(FoundOf(BestBy("acc", true)), Found({1, 0.5}));
  EXPECT_EQ(FoundOf(BestBy("acc", false)), Found({2, 0.7}));
}

TEST_F(Best, ATieGoesToTheEarlierEpoch) {
  Add(5, {{"acc", 0.7}});
  Add(9, {{"acc", 0.7}});
  EXPECT_EQ(Kept(), Found({5, 0.7}));
  Add(-2, {{"acc", 0.7}});
  EXPECT_EQ(Kept(), Found({-2, 0.7})) << "earlier by epoch, not by commit";
}

TEST_F(Best, ZeroesTieWhateverTheirSigns) {
  Add(1, {{"loss", 0.0}});
  Add(2, {{"loss", -0.0}});
  EXPECT_EQ(Kept()->first, 1);
}

TEST_F(Best, IsNeverNan) {
  Add(1, {{"acc", kNan}});
  EXPECT_EQ(Kept(), std::nullopt);
  Add(2, {{"acc", -5}});
  EXPECT_EQ(Kept(), Found({2, -5}));
  Add(3, {{"acc", std::copysign(kNan, -1.0)}});
  EXPECT_EQ(Kept(), Found({2, -5}));
  EXPECT_EQ(FoundOf(BestBy("acc", true)), Found({2, -5}));
}

TEST_F(Best, MayBeInfinite) {
  Add(1, {{"acc", -kInfinity}});
  EXPECT_EQ(Kept(), Found({1, -kInfinity}));
  Add(2, {{"acc", kInfinity}});
  Add(3, {{"acc", 1e308}});
  EXPECT_EQ(Kept(), Found({2, kInfinity}));
  EXPECT_EQ(FoundOf(BestBy("acc", true)), Found({1, -kInfinity}));
}

TEST_F(Best, OnlyTheNewestVersionOfAnEpochCounts) {
  Add(1, {{"acc", 0.9}});
  Add(2, {{"acc", 0.5}});
  EXPECT_EQ(Kept(), Found({1, 0.9}));
  Add(1, {{"acc", 0.1}});
  EXPECT_EQ(Kept(), Found({2, 0.5})) << "the old version of epoch 1 is out";
  Add(1, {{"acc", 0.6}});
  EXPECT_EQ(Kept(), Found({1, 0.6}));
  EXPECT_EQ(run_.run().best().version(), 3U);
}

TEST_F(Best, AnEpochWhoseNewestVersionHasNoNumberIsOut) {
  Add(1, {{"acc", 0.9}});
  Add(1, {});
  EXPECT_EQ(Kept(), std::nullopt);
  Add(2, {{"acc", 0.5}});
  Add(2, {{"acc", kNan}});
  EXPECT_EQ(Kept(), std::nullopt);
}

TEST_F(Best, IsNoneWithTwoMetrics) {
  Add(1, {{"acc", 0.9}});
  Add(2, {{"acc", 0.5}, {"loss", 0.1}});
  EXPECT_EQ(Kept(), std::nullopt);
  Add(3, {{"acc", 1}});
  EXPECT_EQ(Kept(), std::nullopt);
  EXPECT_EQ(FoundOf(BestBy("loss", true)), Found({2, 0.1}));
}

TEST_F(Best, OfAMetricThatNobodyHasIsNone) {
  Add(1, {{"acc", 0.9}});
  EXPECT_EQ(FoundOf(BestBy("acc2", false)), std::nullopt);
  EXPECT_EQ(FoundOf(BestBy("", false)), std::nullopt);
}

TEST_F(Best, IsWhatTheRuleSaysInAnyOrderOfCommits) {
  const char* given = std::getenv("CKPT_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::cout << "CKPT_SEED=" << seed << std::endl;
  std::mt19937_64 random(seed);
  const double values[] = {0, -0.0, 1, 2, 3, kNan, kInfinity, -kInfinity};
  const std::string metric = random() % 2 == 0 ? "acc" : "loss";
  bool lower = metric == "loss";
  std::map<std::int64_t, std::optional<double>> newest;  // by epoch
  for (int round = 0; round < 400; ++round) {
    const std::int64_t epoch = static_cast<std::int64_t>(random() % 12) - 4;
    const double value = values[random() % 8];
    const bool without = random() % 5 == 0;
    if (random() % 10 == 0) lower = random() % 2 == 0;
    Add(epoch, without ? Metrics() : Metrics{{metric, value}, {"other", 1}}, metric + (lower ? ":min" : ":max"));
    newest[epoch] = without || std::isnan(value) ? std::nullopt : std::optional(value);
    Found expected;
    for (const auto& [at, number] : newest)
      if (number.has_value() &&
          (!expected.has_value() || (lower ? *number < expected->second : *number > expected->second)))
        expected = {at, *number};
    ASSERT_EQ(Kept(), expected) << "round " << round;
  }
}

TEST_F(Summary, FindsACheckpointByItsSequence) {
  const v1::Checkpoint checkpoint = Add(3, {});
  v1::SequenceRow row;
  row.set_epoch(3);
  row.set_version(1);
  Put(keys::Sequence({kRunId, 5}), row);
  row.set_version(2);
  Put(keys::Sequence({kRunId, 6}), row);
  const auto find = [&](const VersionId& version) {
    std::optional<v1::Checkpoint> found;
    CKPT_CHECK_OK(store_->engine().Transact(KvEngine::Durability::kLazy, [&](Transaction& txn) -> absl::Status {
      CKPT_ASSIGN_OR_RETURN(found, CheckpointBySequence(txn, version));
      return absl::OkStatus();
    }));
    return found;
  };
  ASSERT_TRUE(find({kRunId, 5}).has_value());
  EXPECT_EQ(find({kRunId, 5})->SerializeAsString(), checkpoint.SerializeAsString());
  EXPECT_FALSE(find({kRunId, 6}).has_value()) << "deleted since";
  EXPECT_FALSE(find({kRunId, 4}).has_value());
  EXPECT_FALSE(find({kRunId + 1, 5}).has_value());
}

}  // namespace
}  // namespace ckpt::storage
