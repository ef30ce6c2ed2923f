// The rules of the storage protocol, each with a test that fails without it. docs/architecture.md has them in words.
// What two transactions may not do to each other is in session_interleaving_test.cc and pack_interleaving_test.cc.
#include <algorithm>
#include <fstream>
#include <numeric>

#include "base/random.h"
#include "storage/checkpoint_reads.h"
#include "storage/pack_record.h"
#include "storage/pin_table.h"
#include "storage/record_bitmap.h"
#include "storage/rocksdb_engine.h"
#include "storage/store_fixture.h"

namespace ckpt::storage {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::UnorderedElementsAre;

class Protocol : public StoreTest {
 protected:
  // Waits until all that the stream was given is acked.
  static void Settle(SaveStream& save) {
    ASSERT_THAT(save.Flush(true), IsOk());
    ASSERT_THAT(save.Settle(), IsOk());
  }

  v1::PackRow PackRowOf(const PackId& pack) { return Get<v1::PackRow>(keys::Pack(pack)); }

  void SetPackState(const PackId& pack, v1::PackRow::State state) {
    v1::PackRow row = PackRowOf(pack);
    row.set_state(state);
    Put(keys::Pack(pack), row);
  }

  void Quarantine(const std::string& bytes) {
    const v1::ChunkRow row = ChunkRowOf(bytes);
    CKPT_CHECK_OK(store_->chunks().Quarantine("default", {false, Sha256(bytes)}, PackIdOf(row), row.offset()));
  }

  // Where the last record of a pack ends.
  static std::uint64_t EndOfRecords(const std::filesystem::path& pack) {
    std::ifstream in(pack, std::ios::binary);
    const std::string content{std::istreambuf_iterator<char>(in), {}};
    std::uint64_t end = kPackHeaderSize;
    while (end + kRecordHeaderSize <= content.size()) {
      const auto header = DecodeRecordHeader(AsBytes(std::string_view(content).substr(end, kRecordHeaderSize)));
      if (!header.ok()) break;
      end += kRecordHeaderSize + header->stored_length;
    }
    return end;
  }

  static std::string DigestOf(const std::string& bytes) { return std::string(Sha256(bytes).view()); }

  // A tensor of one chunk, which is cited.
  static absl::Status Cite(SaveStream& save, const std::string& path, const std::string& bytes) {
    v1::TensorBatch batch;
    *batch.add_tensors() = HeaderOf(path, bytes);
    CKPT_RETURN_IF_ERROR(save.AddTensors(std::move(batch)));
    return save.Cite(DigestOf(bytes));
  }
};

const v1::SaveCommit kNoMetrics;

// How many bytes each of the session's batches had.
class Batches : public Protocol {
 protected:
  static constexpr std::size_t kMiB = std::size_t{1} << 20;

  std::vector<std::uint64_t> BatchesOf(const SaveStream& save) {
    std::vector<std::uint64_t> out;
    for (const auto& [key, value] : Rows(keys::ProgressOf(SessionOf(save))))
      out.push_back(static_cast<std::uint64_t>(ParseRow<v1::ProgressRow>(key, value)->chunks_size()) * kChunk);
    return out;
  }
};

TEST_F(Batches, GrowWhileTheDiskIsBehind) {
  auto save = Begin(BeginOf("run", 1));
  // As long as the session's row is held, no batch becomes durable.
  CKPT_CHECK_OK(store_->engine().Transact(KvEngine::Durability::kLazy, [&](Transaction& txn) -> absl::Status {
    CKPT_RETURN_IF_ERROR(txn.Get(keys::Session(SessionOf(*save)), Hold::kExclusive).status());
    return SendTensors(*save, {{"model.a", Data('a', 22 * kMiB / kChunk)}});
  }));
  Settle(*save);
  const std::vector<std::uint64_t> batches = BatchesOf(*save);
  EXPECT_EQ(std::accumulate(batches.begin(), batches.end(), std::uint64_t{0}), 22 * kMiB);
  EXPECT_EQ(batches.front(), 4 * kMiB);
  EXPECT_GT(*std::max_element(batches.begin(), batches.end()), 4 * kMiB);
  EXPECT_LE(*std::max_element(batches.begin(), batches.end()), 16 * kMiB);
}

TEST_F(Batches, AreSmallWhereManyStreamsSave) {
  auto save = Begin(BeginOf("run", 1));
  store_->CountSaveStream(63);
  ASSERT_THAT(SendTensors(*save, {{"model.a", Data('a', 6 * kMiB / kChunk)}}), IsOk());
  Settle(*save);
  store_->CountSaveStream(-63);
  EXPECT_THAT(BatchesOf(*save), testing::AllOf(SizeIs(6), testing::Each(kMiB)));
}

TEST_F(Protocol, APositiveAnswerIsPinned) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status(), IsOk());
  const auto save = Begin(BeginOf("r", 2));
  const auto missing = save->Have(DigestOf(Data('a')) + DigestOf(Data('b')));
  ASSERT_THAT(missing.status(), IsOk());
  EXPECT_EQ(*missing, "\x02");
  EXPECT_THAT(Pins(SessionOf(*save)), ElementsAre(PackIdOf(ChunkRowOf(Data('a')))));
}

TEST_F(Protocol, TheSamePacksArePinnedOnce) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}, {"m.b", Data('b')}}).status(), IsOk());
  CloseStore();  // seals the pack, so that what is new comes into another one
  OpenStore();
  ASSERT_THAT(Save(BeginOf("r", 2), {{"m.c", Data('c')}}).status(), IsOk());
  const PackId first = PackIdOf(ChunkRowOf(Data('a'))), second = PackIdOf(ChunkRowOf(Data('c')));
  const auto save = Begin(BeginOf("r", 3));
  for (const char chunk : {'a', 'b', 'a'}) ASSERT_THAT(save->Have(DigestOf(Data(chunk))).status(), IsOk());
  EXPECT_THAT(Rows(keys::PinsOfSession(SessionOf(*save))), SizeIs(1));
  ASSERT_THAT(save->Have(DigestOf(Data('c')) + DigestOf(Data('a'))).status(), IsOk());
  ASSERT_THAT(Cite(*save, "m.a", Data('a')), IsOk());
  Settle(*save);
  std::string packs;
  for (const auto& [key, value] : Rows(keys::PinsOfSession(SessionOf(*save))))
    packs += ParseRow<v1::PinsRow>(key, value)->packs();
  EXPECT_THAT(packs, SizeIs(2 * PackId::kSize)) << "a pack that the stream has pinned, again beside another";
  EXPECT_THAT(Pins(SessionOf(*save)), UnorderedElementsAre(first, second));
}

TEST_F(Protocol, PinsThatCannotBeReadAreDamage) {
  const auto save = Begin(BeginOf("r", 1));
  ASSERT_THAT(Send(*save, {{"m.a", Data('a')}}), IsOk());
  v1::PinsRow row;
  row.set_packs(std::string(PackId::kSize + 1, 'p'));
  Put(keys::Pins(SessionOf(*save), Sha256(row.packs())), row);
  EXPECT_THAT(save->Commit(kNoMetrics).status(), IsError(absl::StatusCode::kDataLoss, "CATALOG_DAMAGED"));
}

TEST_F(Protocol, AnswersToManyStandWhereTheyWereAskedFor) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status(), IsOk());
  std::string digests;
  const std::vector<std::size_t> there = {0, 1023, 1024, 2049};
  for (std::size_t i = 0; i < 2050; ++i)
    digests += DigestOf(std::count(there.begin(), there.end(), i) != 0 ? Data('a') : "nobody has " + std::to_string(i));
  const auto missing = Begin(BeginOf("r", 2))->Have(digests);
  ASSERT_THAT(missing.status(), IsOk());
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < 2050; ++i)
    if ((static_cast<unsigned char>((*missing)[i / 8]) >> i % 8 & 1) == 0) found.push_back(i);
  EXPECT_EQ(found, there);
}

TEST_F(Protocol, AnAckPinsThePackThatWasWritten) {
  const auto save = Begin(BeginOf("r", 1));
  ASSERT_THAT(SendTensors(*save, {{"m.a", Data('a')}}), IsOk());
  Settle(*save);
  EXPECT_THAT(Pins(SessionOf(*save)), ElementsAre(PackIdOf(ChunkRowOf(Data('a')))));
}

TEST_F(Protocol, AnAckPinsThePackOfTheRowThatWasFirst) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status(), IsOk());
  const PackId first = PackIdOf(ChunkRowOf(Data('a')));
  // A second store of packs, so that the next batch goes elsewhere.
  CloseStore();
  OpenStore();
  const auto save = Begin(BeginOf("r", 2));
  ASSERT_THAT(SendTensors(*save, {{"m.a", Data('a')}, {"m.b", Data('b')}}), IsOk());
  Settle(*save);
  EXPECT_EQ(PackIdOf(ChunkRowOf(Data('a'))), first);
  EXPECT_THAT(Pins(SessionOf(*save)), Contains(first));
  EXPECT_THAT(Pins(SessionOf(*save)), Contains(PackIdOf(ChunkRowOf(Data('b')))));
  ASSERT_THAT(SendTree(*save, {{"m.a", Data('a')}, {"m.b", Data('b')}}), IsOk());
  ASSERT_THAT(save->Commit(kNoMetrics).status(), IsOk());
  ExpectReferences({1, 2}, "m", {Data('a'), Data('b')});
}

TEST_F(Protocol, ACommitRefersToWhatItWasPromised) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}, {"m.b", Data('b')}, {"m.c", Data('c')}}).status(), IsOk());
  CloseStore();  // seals the pack, so that what is new comes into another one
  OpenStore();
  const auto save = Begin(BeginOf("r", 2));
  ASSERT_EQ(save->Have(DigestOf(Data('c')) + DigestOf(Data('b'))).value(), std::string(1, '\0'));
  ASSERT_THAT(Cite(*save, "m.c", Data('c')), IsOk());
  ASSERT_THAT(Cite(*save, "m.b", Data('b')), IsOk());
  ASSERT_THAT(SendTensors(*save, {{"m.d", Data('d')}, {"m.again", Data('d')}}), IsOk());
  ASSERT_THAT(SendTree(*save, {{"m.c", Data('c')}, {"m.b", Data('b')}, {"m.d", Data('d')}, {"m.again", Data('d')}}),
              IsOk());
  ASSERT_THAT(save->Commit(kNoMetrics).status(), IsOk());
  ExpectReferences({1, 2}, "m", {Data('b'), Data('c'), Data('d')});
}

TEST_F(Protocol, ACommitDoesNotReadTheRowsOfWhatItWasPromised) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status(), IsOk());
  const auto save = Begin(BeginOf("r", 2));
  ASSERT_EQ(save->Have(DigestOf(Data('a'))).value(), std::string(1, '\0'));
  ASSERT_THAT(Cite(*save, "m.a", Data('a')), IsOk());
  ASSERT_THAT(SendTree(*save, {{"m.a", Data('a')}}), IsOk());
  const v1::ChunkRow promised = ChunkRowOf(Data('a'));
  v1::ChunkRow other = promised;
  other.set_ordinal(promised.ordinal() + 100);
  Put(keys::Chunk("default", Sha256(Data('a'))), other);  // as nobody may: without a note in the pack's row
  ASSERT_THAT(save->Commit(kNoMetrics).status(), IsOk());
  Put(keys::Chunk("default", Sha256(Data('a'))), promised);
  ExpectReferences({1, 2}, "m", {Data('a')});
}

TEST_F(Protocol, AChunkInACondemnedPackIsMissing) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status(), IsOk());
  const PackId old = PackIdOf(ChunkRowOf(Data('a')));
  CloseStore();
  OpenStore();
  SetPackState(old, v1::PackRow::CONDEMNED);
  const auto save = Begin(BeginOf("r", 2));
  EXPECT_EQ(save->Have(DigestOf(Data('a'))).value(), "\x01");
  EXPECT_THAT(Pins(SessionOf(*save)), IsEmpty());
  ASSERT_THAT(Send(*save, {{"m.a", Data('a')}}), IsOk());
  ASSERT_THAT(save->Commit(kNoMetrics).status(), IsOk());
  EXPECT_NE(PackIdOf(ChunkRowOf(Data('a'))), old);
}

TEST_F(Protocol, AQuarantinedChunkIsMissingAndHealsWithItsReferencesAndPins) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}, {"m.b", Data('b')}}).status(), IsOk());
  const v1::ChunkRow old = ChunkRowOf(Data('a'));
  auto other = Begin(BeginOf("r", 5));  // was promised the chunk before it was found damaged
  const SessionId promised = SessionOf(*other);
  ASSERT_EQ(other->Have(DigestOf(Data('a'))).value(), std::string(1, '\0'));
  Quarantine(Data('a'));
  other.reset();
  CloseStore();  // seals the pack, so that the new copy comes into another one
  OpenStore();

  const auto save = Begin(BeginOf("r", 2));
  EXPECT_EQ(save->Have(DigestOf(Data('a'))).value(), "\x01");
  ASSERT_THAT(Send(*save, {{"m.a", Data('a')}}), IsOk());
  ASSERT_THAT(save->Commit(kNoMetrics).status(), IsOk());

  const v1::ChunkRow fresh = ChunkRowOf(Data('a'));
  ASSERT_NE(PackIdOf(fresh), PackIdOf(old));
  EXPECT_FALSE(fresh.quarantined());
  const auto reference = Get<v1::ReferenceRow>(keys::Reference(PackIdOf(fresh), {1, 1}, "m"));
  EXPECT_TRUE(HasRecord(reference.records(), fresh.ordinal()));
  const auto rest = Get<v1::ReferenceRow>(keys::Reference(PackIdOf(old), {1, 1}, "m"));
  EXPECT_FALSE(HasRecord(rest.records(), old.ordinal()));
  EXPECT_TRUE(HasRecord(rest.records(), ChunkRowOf(Data('b')).ordinal()));
  EXPECT_THAT(Pins(promised), UnorderedElementsAre(PackIdOf(old), PackIdOf(fresh)));
  EXPECT_EQ(Restore("r@1").value()["m.a"], Data('a'));
}

TEST_F(Protocol, RecordsOfAPackThatHealTogetherTakeItsPinsAlong) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}, {"m.b", Data('b')}}).status(), IsOk());
  const PackId old = PackIdOf(ChunkRowOf(Data('a')));
  auto other = Begin(BeginOf("r", 5));
  const SessionId promised = SessionOf(*other);
  ASSERT_EQ(other->Have(DigestOf(Data('b'))).value(), std::string(1, '\0'));
  for (const char chunk : {'a', 'b'}) Quarantine(Data(chunk));
  other.reset();
  CloseStore();
  OpenStore();
  ASSERT_THAT(Save(BeginOf("r", 2), {{"m.a", Data('a')}, {"m.b", Data('b')}}).status(), IsOk());
  const PackId fresh = PackIdOf(ChunkRowOf(Data('a')));
  ASSERT_NE(fresh, old);
  EXPECT_EQ(PackIdOf(ChunkRowOf(Data('b'))), fresh);
  EXPECT_THAT(Pins(promised), UnorderedElementsAre(old, fresh));
  ExpectReferences({1, 1}, "m", {Data('a'), Data('b')});
}

TEST_F(Protocol, ReferencesOfAllVersionsFollowRecordsThatHealTogether) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}, {"m.b", Data('b')}, {"m.c", Data('c')}}).status(), IsOk());
  CloseStore();
  OpenStore();  // and what is saved now goes into another pack
  ASSERT_THAT(Save(BeginOf("r", 2), {{"m.b", Data('b')}, {"m.d", Data('d')}}).status(), IsOk());
  ASSERT_NE(PackIdOf(ChunkRowOf(Data('a'))), PackIdOf(ChunkRowOf(Data('d'))));
  for (const char chunk : {'a', 'b', 'd'}) Quarantine(Data(chunk));
  CloseStore();
  OpenStore();
  ASSERT_THAT(Save(BeginOf("r", 3), {{"m.a", Data('a')}, {"m.b", Data('b')}, {"m.d", Data('d')}}).status(), IsOk());
  ExpectReferences({1, 1}, "m", {Data('a'), Data('b'), Data('c')});
  ExpectReferences({1, 2}, "m", {Data('b'), Data('d')});
  ExpectReferences({1, 3}, "m", {Data('a'), Data('b'), Data('d')});
  EXPECT_EQ(Restore("r@1").value()["m.b"], Data('b'));
  EXPECT_EQ(Restore("r@2").value()["m.d"], Data('d'));
}

// As a save that was open when pins were other rows.
TEST_F(Protocol, ASaveWhosePinsAreGoneIsToldSo) {
  const v1::SaveBegin begin = BeginOf("r", 1, RandomBytes(16));
  auto save = Begin(begin);
  ASSERT_THAT(SendTensors(*save, {{"m.a", Data('a')}}), IsOk());
  Settle(*save);
  const SessionId session = SessionOf(*save);
  save.reset();
  CKPT_CHECK_OK(store_->engine().Transact(KvEngine::Durability::kSync,
                                          [&](Transaction& txn) { return DropPins(txn, session, {}); }));
  CloseStore();
  OpenStore();  // else the manifest's pack is the chunk's
  save = Begin(begin);
  ASSERT_THAT(Cite(*save, "m.a", Data('a')), IsOk());
  ASSERT_THAT(SendTree(*save, {{"m.a", Data('a')}}), IsOk());
  EXPECT_THAT(save->Commit(kNoMetrics).status(), HasReason("CHUNK_MISSING"));
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status(), IsOk());
}

TEST_F(Protocol, AVersionThatHealsAwayFromAPackIsNotListedForIt) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status(), IsOk());
  const PackId old = PackIdOf(ChunkRowOf(Data('a')));
  CloseStore();
  OpenStore();
  ASSERT_THAT(Save(BeginOf("r", 2), {{"m.a", Data('a')}, {"m.b", Data('b')}}).status(), IsOk());
  ASSERT_THAT(Rows(keys::VersionPack({1, 2}, old)), SizeIs(1));
  Quarantine(Data('a'));
  ASSERT_THAT(Save(BeginOf("r", 3), {{"m.a", Data('a')}}).status(), IsOk());
  EXPECT_THAT(Rows(keys::VersionPack({1, 2}, old)), IsEmpty());
  EXPECT_THAT(Rows(keys::VersionPack({1, 1}, old)), SizeIs(1)) << "its manifest is there";
  EXPECT_THAT(Rows(keys::VersionPack({1, 2}, PackIdOf(ChunkRowOf(Data('a'))))), SizeIs(1));
}

TEST_F(Protocol, ACommitNamesAChunkThatWasFoundDamagedSinceItWasPromised) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status(), IsOk());
  const auto save = Begin(BeginOf("r", 2));
  ASSERT_THAT(Send(*save, {{"m.a", Data('a')}}), IsOk());
  Settle(*save);
  Quarantine(Data('a'));
  const absl::Status status = save->Commit(kNoMetrics).status();
  EXPECT_THAT(status, HasReason("CHUNK_MISSING"));
  EXPECT_THAT(std::string(status.message()), HasSubstr(Sha256(Data('a')).ToHex()));
}

TEST_F(Protocol, AZombiesLateMessagesFail) {
  const v1::SaveBegin begin = BeginOf("r", 1);
  const auto zombie = Begin(begin);
  ASSERT_THAT(SendTensors(*zombie, {{"m.a", Data('a')}}), IsOk());
  const auto save = Begin(begin);
  ASSERT_THAT(zombie->Flush(true), IsOk());
  EXPECT_THAT(zombie->Settle(), HasReason("FENCED"));
  EXPECT_THAT(zombie->Have(DigestOf(Data('a'))).status(), HasReason("FENCED"));
  ASSERT_THAT(Send(*save, {{"m.a", Data('a')}}), IsOk());
  EXPECT_THAT(save->Commit(kNoMetrics).status(), IsOk());
}

TEST_F(Protocol, ASessionThatEndedCannotCommit) {
  const v1::SaveBegin begin = BeginOf("r", 1);
  auto save = Begin(begin);
  ASSERT_THAT(Send(*save, {{"m.a", Data('a')}}), IsOk());
  v1::SessionRow row = Get<v1::SessionRow>(keys::Session(SessionOf(*save)));
  row.set_state(v1::SessionRow::EXPIRED);
  Put(keys::Session(SessionOf(*save)), row);
  EXPECT_THAT(save->Commit(kNoMetrics).status(), HasReason("SESSION_ENDED"));
  EXPECT_THAT(Resolve(store_->engine(), "", "r:latest").status(), HasReason("RUN_NOT_FOUND"));
}

TEST_F(Protocol, ALeaseNeverEndsUnderAnOpenStream) {
  auto save = Begin(BeginOf("r", 1));
  clock_.Advance(std::chrono::hours(48));
  ASSERT_THAT(store_->sessions().ExpireIdle(), IsOk());
  ASSERT_THAT(Send(*save, {{"m.a", Data('a')}}), IsOk());
  EXPECT_THAT(save->Commit(kNoMetrics).status(), IsOk());
}

TEST_F(Protocol, ALeaseThatEndsDropsThePins) {
  auto save = Begin(BeginOf("r", 1));
  const SessionId session = SessionOf(*save);
  ASSERT_THAT(SendTensors(*save, {{"m.a", Data('a')}}), IsOk());
  Settle(*save);
  save.reset();
  ASSERT_THAT(store_->sessions().ExpireIdle(), IsOk());
  EXPECT_THAT(Pins(session), SizeIs(1)) << "the lease runs from the end of the stream";
  clock_.Advance(options_.lease + std::chrono::seconds(1));
  ASSERT_THAT(store_->sessions().ExpireIdle(), IsOk());
  EXPECT_THAT(Pins(session), IsEmpty());
  EXPECT_THAT(Rows(keys::ProgressOf(session)), IsEmpty());
  EXPECT_EQ(Get<v1::SessionRow>(keys::Session(session)).state(), v1::SessionRow::EXPIRED);
}

TEST_F(Protocol, LeasesStartAnewWithTheServer) {
  const v1::SaveBegin begin = BeginOf("r", 1);
  auto save = Begin(begin);
  const SessionId session = SessionOf(*save);
  save.reset();
  clock_.Advance(options_.lease - std::chrono::seconds(1));
  CloseStore();
  OpenStore();
  clock_.Advance(std::chrono::seconds(2));
  ASSERT_THAT(store_->sessions().ExpireIdle(), IsOk());
  EXPECT_EQ(Get<v1::SessionRow>(keys::Session(session)).state(), v1::SessionRow::OPEN);
}

TEST_F(Protocol, AnAttemptThatBeginsAgainResumesWithWhatWasAcked) {
  const v1::SaveBegin begin = BeginOf("r", 1);
  auto save = Begin(begin);
  ASSERT_THAT(SendTensors(*save, {{"m.a", Data('a')}}), IsOk());
  Settle(*save);
  const SessionId session = SessionOf(*save);
  save.reset();
  CloseStore();
  OpenStore();

  save = Begin(begin);
  EXPECT_EQ(SessionOf(*save), session);
  EXPECT_EQ(save->begun().fence(), 2);
  ASSERT_EQ(save->begun().acked_count(), 1);
  const std::vector<v1::ProgressRow> acked = save->TakeAcked();
  EXPECT_EQ(acked[0].chunks(0).digest(), DigestOf(Data('a')));
  EXPECT_EQ(acked[0].chunks(0).fingerprint(), Xxh3(Data('a')).view());
  ASSERT_THAT(Cite(*save, "m.a", Data('a')), IsOk());
  ASSERT_THAT(SendTensors(*save, {{"m.b", Data('b')}}), IsOk());
  ASSERT_THAT(SendTree(*save, {{"m.a", Data('a')}, {"m.b", Data('b')}}), IsOk());
  const auto checkpoint = save->Commit(kNoMetrics);
  ASSERT_THAT(checkpoint.status(), IsOk());
  EXPECT_GE(checkpoint->committed().checkpoint().new_bytes(), 2 * kChunk) << "what the first stream stored counts";
  EXPECT_EQ(Restore("r@1").value()["m.a"], Data('a'));
  ExpectReferences({1, 1}, "m", {Data('a'), Data('b')});
}

TEST_F(Protocol, WhatIsSentAgainReplaces) {
  const v1::SaveBegin begin = BeginOf("r", 1);
  auto save = Begin(begin);
  ASSERT_THAT(SendTensors(*save, {{"m.a", Data('a')}, {"m.b", Data('b')}}), IsOk());
  Settle(*save);
  save.reset();
  ASSERT_THAT(Save(begin, {{"m.a", Data('c')}, {"m.b", Data('d')}}).status(), IsOk());
  EXPECT_THAT(Restore("r@1").value(), ElementsAre(std::pair("m.a", Data('c')), std::pair("m.b", Data('d'))));
}

TEST_F(Protocol, TheSameCommitAgainIsTheSameVersion) {
  const v1::SaveBegin begin = BeginOf("r", 1);
  const Tensors tensors = {{"m.a", Data('a', 3)}, {"m.b", "inline"}};
  const auto first = Save(begin, tensors, {{"acc", 0.5}});
  ASSERT_THAT(first.status(), IsOk());
  EXPECT_EQ(Begin(begin)->begun().committed().version(), 1);
  const auto again = Save(begin, tensors, {{"acc", 0.5}});
  ASSERT_THAT(again.status(), IsOk());
  EXPECT_EQ(again->SerializeAsString(), first->SerializeAsString());
}

TEST_F(Protocol, OneAttemptKeyIsOneSave) {
  const v1::SaveBegin begin = BeginOf("r", 1);
  ASSERT_THAT(Save(begin, {{"m.a", Data('a')}}).status(), IsOk());
  EXPECT_THAT(Save(begin, {{"m.a", Data('b')}}).status(), HasReason("ATTEMPT_REUSED"));
  EXPECT_THAT(Save(begin, {{"m.a", Data('a')}}, {{"acc", 1}}).status(), HasReason("ATTEMPT_REUSED"));
  const auto other =
      SaveStream::Begin(*store_, BeginOf("r", 2, begin.attempt_key()), [](const std::string&, std::uint64_t) {});
  EXPECT_THAT(other.status(), HasReason("ATTEMPT_REUSED"));
}

TEST_F(Protocol, ACitationNeedsAPinOrAnAck) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status(), IsOk());
  const auto save = Begin(BeginOf("r", 2));
  EXPECT_THAT(Cite(*save, "m.a", Data('a')), HasReason("CHUNK_NOT_PINNED"));
}

TEST_F(Protocol, ABatchOfTensorsCitesTheFirstOfTheirChunks) {
  const std::string a = Data('a', 2);
  const std::string c = Data('c', 2);
  const Tensors tensors = {{"m.a", a}, {"m.b", "inline"}, {"m.c", c}};
  ASSERT_THAT(Save(BeginOf("r", 1), tensors).status(), IsOk());
  const auto save = Begin(BeginOf("r", 2));
  v1::TensorBatch batch;
  for (const auto& [path, bytes] : tensors) *batch.add_tensors() = HeaderOf(path, bytes);
  for (const std::string& chunk : {a.substr(0, kChunk), a.substr(kChunk), c.substr(0, kChunk)})
    batch.mutable_cited_digests()->append(DigestOf(chunk));
  ASSERT_EQ(save->Have(batch.cited_digests()).value(), std::string(1, '\0'));
  ASSERT_THAT(save->AddTensors(batch), IsOk());
  ASSERT_THAT(save->AddChunk(Payload::Of(c.substr(kChunk)), {}), IsOk());
  ASSERT_THAT(SendTree(*save, tensors), IsOk());
  ASSERT_THAT(save->Commit(kNoMetrics).status(), IsOk());
  EXPECT_THAT(Restore("r@2").value(),
              testing::ElementsAreArray(std::map<std::string, std::string>(tensors.begin(), tensors.end())));
}

TEST_F(Protocol, ABatchOfTensorsCitesNoMoreThanTheyHave) {
  const std::string a = Data('a');
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", a}}).status(), IsOk());
  const auto save = Begin(BeginOf("r", 2));
  ASSERT_THAT(save->Have(DigestOf(a)).status(), IsOk());
  v1::TensorBatch batch;
  *batch.add_tensors() = HeaderOf("m.a", a);
  batch.set_cited_digests(DigestOf(Data('b')));
  EXPECT_THAT(Begin(BeginOf("r", 3))->AddTensors(batch), HasReason("CHUNK_NOT_PINNED"));
  batch.set_cited_digests(DigestOf(a).substr(1));
  EXPECT_THAT(Begin(BeginOf("r", 3))->AddTensors(batch), HasReason("BAD_DIGESTS"));
  batch.set_cited_digests(DigestOf(a) + DigestOf(a));
  EXPECT_THAT(save->AddTensors(batch), HasReason("WRONG_SIZE"));
}

TEST_F(Protocol, NothingIsSharedBetweenDomains) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status(), IsOk());
  v1::SaveBegin begin = BeginOf("r", 1);
  begin.set_domain("other");
  const auto save = Begin(begin);
  EXPECT_EQ(save->Have(DigestOf(Data('a'))).value(), "\x01");
  EXPECT_THAT(Resolve(store_->engine(), "other", "r@1").status(), HasReason("RUN_NOT_FOUND"));
}

TEST_F(Protocol, ACommitTurnsPinsIntoReferences) {
  const auto save = Begin(BeginOf("r", 1));
  ASSERT_THAT(Send(*save, {{"m.a", Data('a', 2)}, {"o.b", Data('b')}}), IsOk());
  ASSERT_THAT(save->Commit(kNoMetrics).status(), IsOk());
  EXPECT_THAT(Pins(SessionOf(*save)), IsEmpty());
  EXPECT_THAT(Rows(keys::ProgressOf(SessionOf(*save))), IsEmpty());
  const v1::ChunkRow row = ChunkRowOf(Data('b'));
  const auto reference = Get<v1::ReferenceRow>(keys::Reference(PackIdOf(row), {1, 1}, "o"));
  std::string only;
  AddRecord(only, row.ordinal());
  EXPECT_EQ(reference.records(), only);
  // The manifest's records and the version fact belong to no component.
  EXPECT_FALSE(Get<v1::ReferenceRow>(keys::Reference(PackIdOf(row), {1, 1}, "")).records().empty());
}

TEST_F(Protocol, NothingIsVisibleBeforeCommit) {
  const auto save = Begin(BeginOf("r", 1));
  ASSERT_THAT(Send(*save, {{"m.a", Data('a')}}), IsOk());
  Settle(*save);
  EXPECT_EQ(ListRuns(store_->engine(), {}).value().runs_size(), 0);
  EXPECT_THAT(Resolve(store_->engine(), "", "r@1").status(), HasReason("RUN_NOT_FOUND"));
}

TEST_F(Protocol, RecoverySealsAtTheIndexedLengthAndTouchesNoFile) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status(), IsOk());
  const PackId pack = PackIdOf(ChunkRowOf(Data('a')));
  CloseStore();
  const std::filesystem::path file = options_.dir / "packs" / "default" / (pack.ToHex() + ".pack");
  const auto whole = std::filesystem::file_size(file);
  const std::uint64_t end = EndOfRecords(file);
  EXPECT_LT(end, whole);
  std::ofstream(file, std::ios::app) << "torn tail";
  OpenStore();
  EXPECT_EQ(std::filesystem::file_size(file), whole + 9);
  EXPECT_TRUE(PackRowOf(pack).sealed());
  EXPECT_EQ(PackRowOf(pack).sealed_length(), end);
  ASSERT_THAT(Save(BeginOf("r", 2), {{"m.b", Data('b')}}).status(), IsOk());
  EXPECT_NE(PackIdOf(ChunkRowOf(Data('b'))), pack);
  EXPECT_EQ(std::filesystem::file_size(file), whole + 9);
}

TEST_F(Protocol, CommitMarkersAreWrittenAndMissingOnesAtStartUp) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status(), IsOk());
  ASSERT_THAT(store_->versions().WriteMarkers(), IsOk());
  EXPECT_THAT(Rows(keys::PendingMarkers()), IsEmpty());
  CloseStore();
  v1::CommitFact fact;
  fact.set_domain("default");
  fact.set_run_id(1);
  fact.set_sequence(1);
  // While no thread of the store is there that would write the marker at once.
  CKPT_CHECK_OK(RocksDbEngine::Open(options_.dir / "catalog", {})
                    .value()
                    ->Transact(KvEngine::Durability::kSync, [&](Transaction& txn) {
                      return PutRow(txn, keys::PendingMarker({1, 1}), fact);
                    }));
  OpenStore();
  EXPECT_THAT(Rows(keys::PendingMarkers()), IsEmpty());
  EXPECT_THAT(Rows(keys::PacksOfVersion({1, 1})), SizeIs(2)) << "the second marker lies in a new pack";
}

TEST_F(Protocol, ASecondServerIsKeptOff) {
  const auto second = Store::Open(options_);
  EXPECT_THAT(second.status(), HasReason("STORE_IN_USE"));
}

TEST_F(Protocol, TwoSavesOfOneEpochAreTwoVersions) {
  const auto a = Begin(BeginOf("r", 1));
  const auto b = Begin(BeginOf("r", 1));
  ASSERT_THAT(Send(*a, {{"m.a", Data('a')}}), IsOk());
  ASSERT_THAT(Send(*b, {{"m.a", Data('b')}}), IsOk());
  EXPECT_EQ(b->Commit(kNoMetrics).value().committed().checkpoint().version(), 1);
  EXPECT_EQ(a->Commit(kNoMetrics).value().committed().checkpoint().version(), 2);
  EXPECT_EQ(Restore("r@1#1").value()["m.a"], Data('b'));
  EXPECT_EQ(Restore("r@1#2").value()["m.a"], Data('a'));
}

TEST_F(Protocol, EveryDistinctChunkIsStoredOnce) {
  const auto first = Save(BeginOf("r", 1), {{"m.a", Data('a', 8)}, {"m.b", Data('a', 8)}});
  ASSERT_THAT(first.status(), IsOk());
  EXPECT_LT(first->new_bytes(), 9 * kChunk);
  EXPECT_EQ(first->logical_bytes(), 16 * kChunk);
  const auto again = Save(BeginOf("r", 2), {{"m.a", Data('a', 8)}, {"m.b", Data('a', 8)}});
  ASSERT_THAT(again.status(), IsOk());
  EXPECT_EQ(again->new_bytes(), 0) << "equal states have equal manifests";
}

}  // namespace
}  // namespace ckpt::storage
