#include "storage/keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "storage/status_matchers_fixture.h"

namespace ckpt::storage {
namespace {

using std::string_literals::operator""s;
using testing::Not;
using testing::StartsWith;

constexpr std::uint64_t kLast = std::numeric_limits<std::uint64_t>::max();

const std::vector<std::uint64_t>& Numbers() {
  static const std::vector<std::uint64_t> numbers = {0,    1, 127, 128, 255, 256, 65535, 65536, std::uint64_t{1} << 63,
                                                     kLast};
  return numbers;
}
const std::vector<std::int64_t>& Epochs() {
  static const std::vector<std::int64_t> epochs = {
      std::numeric_limits<std::int64_t>::min(), -256, -255, -2, -1, 0, 1, 2, 255, 256,
      std::numeric_limits<std::int64_t>::max()};
  return epochs;
}
// In the order of their bytes; some begin with others.
const std::vector<std::string>& Names() {
  static const std::vector<std::string> names = {"A", "a", "a-b", "a.b", "a/b", "a0", "aa", "aa/b", "b"};
  return names;
}

void ExpectRising(const std::vector<std::string>& keys) {
  for (std::size_t i = 1; i < keys.size(); ++i) EXPECT_LT(keys[i - 1], keys[i]) << i;
}

template <typename Id>
Id IdOf(char c) {
  return *Id::From(std::string(Id::kSize, c));
}
const PackId kPack = IdOf<PackId>('p');
const SessionId kSession = IdOf<SessionId>('s');
const Digest kDigest = IdOf<Digest>('d');

TEST(Keys, AreInTheOrderOfTheirNumbers) {
  std::vector<std::string> fences, batches, runs, versions, sequences;
  for (const std::uint64_t n : Numbers()) {
    fences.push_back(keys::Progress(kSession, 7, n, kLast - n));
    batches.push_back(keys::Progress(kSession, 7, 5, n));
    runs.push_back(keys::Checkpoint(n, -3, kLast - n));
    versions.push_back(keys::Checkpoint(7, -3, n));
    sequences.push_back(keys::Sequence({7, n}));
  }
  for (const auto& rising : {fences, batches, runs, versions, sequences}) ExpectRising(rising);
}

TEST(Keys, AreInTheOrderOfTheirEpochsFromNegativeToPositive) {
  std::vector<std::string> checkpoints, counters;
  for (const std::int64_t epoch : Epochs()) {
    for (const std::uint64_t version : {std::uint64_t{1}, kLast})
      checkpoints.push_back(keys::Checkpoint(7, epoch, version));
    counters.push_back(keys::EpochVersions(7, epoch));
  }
  ExpectRising(checkpoints);
  ExpectRising(counters);
}

TEST(Keys, AreInTheOrderOfTheirNames) {
  std::vector<std::string> domains, runs, pairs;
  for (const std::string& name : Names()) {
    domains.push_back(keys::Domain(name));
    runs.push_back(keys::Run("d", name));
    for (const std::string& run : Names()) pairs.push_back(keys::Run(name, run));
  }
  for (const auto& rising : {domains, runs, pairs}) ExpectRising(rising);
}

TEST(Keys, ANameThatBeginsLikeAnotherIsApartFromIt) {
  EXPECT_THAT(keys::Run("a", "r"), StartsWith(keys::Runs("a")));
  EXPECT_THAT(keys::Run("ab", "r"), Not(StartsWith(keys::Runs("a"))));
  EXPECT_NE(keys::Run("a", "br"), keys::Run("ab", "r"));
  EXPECT_NE(keys::Attempt("a", "b"s + std::string(15, 'k')), keys::Attempt("ab", std::string(15, 'k')));
}

TEST(Keys, OfOneOwnerStandBelowItsPrefix) {
  const VersionId version{3, 9};
  EXPECT_THAT(keys::Session(kSession), StartsWith(keys::Sessions()));
  EXPECT_THAT(keys::Progress(kSession, 0, 1, 2), StartsWith(keys::ProgressOf(kSession)));
  EXPECT_THAT(keys::Checkpoint(3, -1, 2), StartsWith(keys::CheckpointsOfEpoch(3, -1)));
  EXPECT_THAT(keys::CheckpointsOfEpoch(3, -1), StartsWith(keys::CheckpointsOf(3)));
  EXPECT_THAT(keys::Checkpoint(3, 1, 2), Not(StartsWith(keys::CheckpointsOfEpoch(3, -1))));
  EXPECT_THAT(keys::Pack(kPack), StartsWith(keys::Packs()));
  EXPECT_THAT(keys::Pins(kSession, kDigest), StartsWith(keys::PinsOfSession(kSession)));
  EXPECT_THAT(keys::PinsOfSession(kSession), StartsWith(keys::AllPins()));
  EXPECT_THAT(keys::Reference(kPack, version, "m"), StartsWith(keys::ReferencesOfPack(kPack)));
  EXPECT_THAT(keys::VersionPack(version, kPack), StartsWith(keys::PacksOfVersion(version)));
  EXPECT_THAT(keys::PendingMarker(version), StartsWith(keys::PendingMarkers()));
}

// docs/format.md: locks are taken in the order of the letters.
TEST(Keys, HaveTheLettersAndBytesOfTheFormat) {
  const std::string pack(16, 'p'), session(16, 's'), number = "\0\0\0\0\0\0\0\x07"s, one = "\0\0\0\0\0\0\0\x01"s,
                                                     two = "\0\0\0\0\0\0\0\x02"s;
  const std::string sha(32, 'd'), minus_one = "\x7f\xff\xff\xff\xff\xff\xff\xff"s;
  const VersionId version{7, 2};
  EXPECT_EQ(keys::Store(), "A");
  EXPECT_EQ(keys::Domain("x"), "Bx\0"s);
  EXPECT_EQ(keys::Attempt("x", session), "Cx\0"s + session);
  EXPECT_EQ(keys::Session(kSession), "D"s + session);
  EXPECT_EQ(keys::Progress(kSession, 1, 7, 2), "E"s + session + one + number + two);
  EXPECT_EQ(keys::Run("x", "r/1"), "Fx\0r/1\0"s);
  EXPECT_EQ(keys::RunIds(), "G");
  EXPECT_EQ(keys::EpochVersions(7, -1), "H"s + number + minus_one);
  EXPECT_EQ(keys::Checkpoint(7, -1, 2), "I"s + number + minus_one + two);
  EXPECT_EQ(keys::Checkpoint(7, 2, 2), "I"s + number + "\x80\0\0\0\0\0\0\x02"s + two);
  EXPECT_EQ(keys::Sequence(version), "J"s + number + two);
  EXPECT_EQ(keys::Chunk("x", kDigest), "Kx\0"s + sha);
  EXPECT_EQ(keys::Manifest("x", kDigest), "Lx\0"s + sha);
  EXPECT_EQ(keys::Pack(kPack), "M"s + pack);
  EXPECT_EQ(keys::PackLength(kPack), "N"s + pack);
  EXPECT_EQ(keys::Pins(kSession, kDigest), "U"s + session + sha);
  EXPECT_EQ(keys::Reference(kPack, version, "model"), "Q"s + pack + number + two + "model");
  EXPECT_EQ(keys::VersionPack(version, kPack), "R"s + number + two + pack);
  EXPECT_EQ(keys::PendingMarker(version), "S"s + number + two);
}

TEST(Keys, TheirPartsComeBack) {
  EXPECT_EQ(keys::PackOf(keys::Pack(kPack)).value(), kPack);
  EXPECT_EQ(keys::SessionOf(keys::Session(kSession)).value(), kSession);
  EXPECT_EQ(keys::PinningSessionOf(keys::Pins(kSession, kDigest)).value(), kSession);
  for (const std::uint64_t run_id : Numbers()) {
    for (const std::string& component : {""s, "model"s, "a\0b"s}) {
      const auto parsed = keys::ParseReference(keys::Reference(kPack, {run_id, kLast - run_id}, component));
      ASSERT_THAT(parsed.status(), IsOk());
      EXPECT_EQ(parsed->pack, kPack);
      EXPECT_EQ(parsed->version.run_id, run_id);
      EXPECT_EQ(parsed->version.sequence, kLast - run_id);
      EXPECT_EQ(parsed->component, component);
    }
  }
}

TEST(Keys, WhatIsNoSuchKeyIsRefused) {
  const auto damaged = IsError(absl::StatusCode::kDataLoss, "CATALOG_DAMAGED");
  const auto refused = [&](const std::string& good, const auto& parse) {
    ASSERT_THAT(parse(good).status(), IsOk());
    EXPECT_THAT(parse("").status(), damaged);
    EXPECT_THAT(parse(good.substr(0, good.size() - 1)).status(), damaged);
    EXPECT_THAT(parse("A"s + good.substr(1)).status(), damaged);
  };
  refused(keys::Pack(kPack), keys::PackOf);
  refused(keys::Session(kSession), keys::SessionOf);
  refused(keys::Pins(kSession, kDigest), keys::PinningSessionOf);
  refused(keys::Reference(kPack, {1, 2}, ""), keys::ParseReference);
  EXPECT_THAT(keys::PackOf(keys::Pack(kPack) + "x").status(), damaged);
  EXPECT_THAT(keys::PackOf(keys::PackLength(kPack)).status(), damaged);
  EXPECT_THAT(keys::PinningSessionOf(keys::Session(kSession)).status(), damaged);
}

}  // namespace
}  // namespace ckpt::storage
