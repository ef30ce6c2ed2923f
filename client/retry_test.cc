#include "client/retry.h"

#include "base/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ckpt::client {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
const Backoff::Clock::time_point kStart{};
const ConnectOptions kConnect{.address = "host:1"};

TEST(Backoff, WaitsLongerEachTimeUpToALimit) {
  Backoff backoff(seconds(3600), kStart);
  milliseconds ceiling(50);
  for (int i = 0; i < 20; ++i) {
    const auto wait = backoff.Next(kStart);
    ASSERT_TRUE(wait.has_value());
    EXPECT_GE(*wait, ceiling / 2);
    EXPECT_LE(*wait, ceiling);
    ceiling = std::min(ceiling * 2, milliseconds(2000));
  }
}

TEST(Backoff, GivesUpWithoutProgress) {
  Backoff backoff(seconds(10), kStart);
  EXPECT_TRUE(backoff.Next(kStart + seconds(9)).has_value());
  EXPECT_LE(*backoff.Next(kStart + milliseconds(9990)), milliseconds(10));
  EXPECT_FALSE(backoff.Next(kStart + seconds(10)).has_value());
  backoff.Progress(kStart + seconds(10));
  EXPECT_LE(*backoff.Next(kStart + seconds(19)), milliseconds(50));
  EXPECT_FALSE(backoff.Next(kStart + seconds(20)).has_value());
}

absl::Status Unavailable() { return MakeError(absl::StatusCode::kUnavailable, "SERVER_UNREACHABLE", "refused"); }

TEST(Retry, TriesAgainWhatIsUnavailable) {
  Backoff backoff(seconds(10), Backoff::Clock::now());
  int calls = 0;
  EXPECT_TRUE(Retry(backoff, kConnect, [&] { return ++calls < 3 ? Unavailable() : absl::OkStatus(); }).ok());
  EXPECT_EQ(calls, 3);
  EXPECT_TRUE(absl::IsAborted(Retry(backoff, kConnect, [&] { return ++calls, absl::AbortedError("fenced"); })));
  EXPECT_EQ(calls, 4);
}

TEST(Retry, TriesAgainWhatWasInAnothersWay) {
  Backoff backoff(seconds(10), Backoff::Clock::now());
  int calls = 0;
  const absl::Status conflict = MakeError(absl::StatusCode::kAborted, "CONFLICT", "try again");
  EXPECT_TRUE(Retry(backoff, kConnect, [&] { return ++calls < 3 ? conflict : absl::OkStatus(); }).ok());
  EXPECT_EQ(calls, 3);
  Backoff over(milliseconds(0), Backoff::Clock::now());
  EXPECT_EQ(Retry(over, kConnect, [&] { return conflict; }), conflict);
}

TEST(Retry, SaysWhereItLookedWhenItGivesUp) {
  Backoff backoff(milliseconds(0), Backoff::Clock::now());
  const absl::Status status = Retry(backoff, kConnect, [] { return Unavailable(); });
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("cannot reach a ckptd at host:1"));
  EXPECT_EQ(ReasonOf(status), "SERVER_UNREACHABLE");
  // A server that answers is reachable, and knows better.
  const absl::Status busy = MakeError(absl::StatusCode::kUnavailable, "STOPPING", "going down");
  EXPECT_EQ(Retry(backoff, kConnect, [&] { return busy; }), busy);
}

TEST(Retry, WaitsLongerForAServerThatIsFull) {
  const ConnectOptions connect{.address = "host:1", .retry_for = milliseconds(60)};
  const absl::Status full = MakeError(absl::StatusCode::kUnavailable, "TOO_MANY_STREAMS", "full");
  const auto begun = Backoff::Clock::now();
  Backoff backoff(connect.retry_for, begun);
  const auto until_room = [&] { return Backoff::Clock::now() - begun < milliseconds(200) ? full : absl::OkStatus(); };
  EXPECT_TRUE(Retry(backoff, connect, until_room).ok());
  Backoff again(connect.retry_for, Backoff::Clock::now());
  EXPECT_EQ(Retry(again, connect, [&] { return full; }), full) << "and not for ever";
}

TEST(Retry, EndsWhenTheCallerInterrupts) {
  Backoff backoff(seconds(3600), Backoff::Clock::now());
  int asked = 0;
  const ConnectOptions connect{.address = "host:1", .interrupted = [&] { return ++asked == 3; }};
  const absl::Status status = Retry(backoff, connect, [] { return Unavailable(); });
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_EQ(ReasonOf(status), "INTERRUPTED");
  EXPECT_EQ(asked, 3);
}

}  // namespace
}  // namespace ckpt::client
