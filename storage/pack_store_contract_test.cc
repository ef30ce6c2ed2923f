// What pack_store.h promises, of any medium.
#include <atomic>
#include <limits>
#include <random>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/seed_fixture.h"
#include "storage/pack_store_contract_fixture.h"

namespace ckpt::storage {
namespace {

using testing::IsEmpty;
using testing::SizeIs;

TEST_P(PackStoreContract, RecordsComeBackByteForByte) {
  std::string all;
  for (int i = 0; i < 70'000; ++i) all.push_back(static_cast<char>(i * 7 + i / 256));
  const std::vector<std::string> payloads = {"", "a", std::string(112, '\0'), all, "", all.substr(3, 4097)};
  const WrittenBatch batch = WriteAndRelease("d", payloads);
  EXPECT_EQ(batch.locations[0].ordinal, 0);
  EXPECT_EQ(batch.locations[0].offset, kPackHeaderSize);
  ExpectHolds("d", batch, payloads);
}

TEST_P(PackStoreContract, APackBeginsWithItsHeader) {
  const WrittenBatch batch = WriteAndRelease("team-1", {"a"});
  const auto header = DecodePackHeader(AsBytes(Read("team-1", batch.pack, 0, kPackHeaderSize).value()));
  ASSERT_THAT(header.status(), IsOk());
  EXPECT_EQ(header->pack_id, batch.pack.view());
  EXPECT_EQ(header->domain, "team-1");
}

TEST_P(PackStoreContract, APayloadOfManyPiecesIsStoredAsOne) {
  const std::vector<std::string> parts = {"ab", "", "cde", std::string(5000, 'x'), "f"};
  std::vector<Bytes> pieces;
  for (const std::string& part : parts) pieces.push_back(AsBytes(part));
  const Record record = MakeRecord(RecordKind::kManifestPart, pieces);
  const auto batch = store_->Write("d", {&record, 1}, nullptr);
  ASSERT_THAT(batch.status(), IsOk());
  store_->Release(batch->pack, true);
  ExpectHolds("d", *batch, {"abcde" + std::string(5000, 'x') + "f"});
  const std::string header = Read("d", batch->pack, batch->locations[0].offset, kRecordHeaderSize).value();
  EXPECT_EQ(DecodeRecordHeader(AsBytes(header))->kind, RecordKind::kManifestPart);
}

TEST_P(PackStoreContract, TheNextBatchFollowsTheLast) {
  const WrittenBatch first = WriteAndRelease("d", {"a", "b"});
  const WrittenBatch second = WriteAndRelease("d", {"c", "d", "e"}, &first.pack);
  ASSERT_EQ(second.pack, first.pack);
  EXPECT_EQ(second.locations[0].offset, first.end);
  EXPECT_EQ(second.locations[0].ordinal, 2);
  ExpectHolds("d", first, {"a", "b"});
  ExpectHolds("d", second, {"c", "d", "e"});
}

TEST_P(PackStoreContract, ARecordIsReadableBeforeItsPackIsReleased) {
  const WrittenBatch batch = Write("d", {"a"});
  ExpectHolds("d", batch, {"a"});
  store_->Release(batch.pack, true);
}

TEST_P(PackStoreContract, TheLargestRecordAndManySmallOnesAreTaken) {
  const std::string largest(kMaxRecordPayload, 'L');
  ExpectHolds("d", WriteAndRelease("d", {largest}), {largest});
  std::vector<std::string> many;
  for (int i = 0; i < 5000; ++i) many.push_back(std::to_string(i));
  ExpectHolds("d", WriteAndRelease("d", many), many);
}

TEST_P(PackStoreContract, ThePreferredPackIsTakenIfItIsFree) {
  const WrittenBatch a = Write("d", {"a"});
  const WrittenBatch b = Write("d", {"b"});
  const WrittenBatch c = Write("d", {"c"});
  for (const WrittenBatch* batch : {&a, &b, &c}) store_->Release(batch->pack, true);
  for (const WrittenBatch* batch : {&b, &a, &c, &c})
    EXPECT_EQ(WriteAndRelease("d", {"x"}, &batch->pack).pack, batch->pack);
}

TEST_P(PackStoreContract, APreferredPackThatCannotBeTakenIsPassedOver) {
  const WrittenBatch busy = Write("d", {"a"});
  EXPECT_NE(WriteAndRelease("d", {"b"}, &busy.pack).pack, busy.pack);
  store_->Release(busy.pack, true);
  EXPECT_NE(WriteAndRelease("other", {"b"}, &busy.pack).pack, busy.pack);
  const PackId unknown{};
  EXPECT_NE(WriteAndRelease("d", {"b"}, &unknown).pack, unknown);
}

TEST_P(PackStoreContract, APackIsItsWritersUntilTheRelease) {
  std::set<PackId> packs;
  std::vector<WrittenBatch> batches;
  for (std::size_t i = 0; i < setup_.max_open_packs; ++i) batches.push_back(Write("d", {"a"}));
  for (const WrittenBatch& batch : batches) EXPECT_TRUE(packs.insert(batch.pack).second);
  for (const WrittenBatch& batch : batches) store_->Release(batch.pack, true);
  EXPECT_TRUE(packs.contains(WriteAndRelease("d", {"a"}).pack));
}

TEST_P(PackStoreContract, ManyWritersShareAFewPacks) {
  constexpr int kThreads = 8;
  constexpr int kEach = 40;
  setup_.max_open_packs = 2;
  setup_.target_size_bytes = 64 << 10;
  Reopen();
  std::mt19937_64 random = SeededRandom();
  Mutex mutex;
  std::set<PackId> busy;
  std::vector<std::pair<WrittenBatch, std::vector<std::string>>> written;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, local = std::mt19937_64(random())]() mutable {
      PackId last{};
      for (int i = 0; i < kEach; ++i) {
        std::vector<std::string> payloads(1 + local() % 4);
        for (std::string& payload : payloads) payload.assign(local() % 4000, static_cast<char>(local()));
        const WrittenBatch batch = Write("d", payloads, &last);
        {
          const MutexLock lock(mutex);
          EXPECT_TRUE(busy.insert(batch.pack).second) << "two writers in one pack";
        }
        std::this_thread::yield();
        {
          const MutexLock lock(mutex);
          busy.erase(batch.pack);
          written.emplace_back(batch, std::move(payloads));
        }
        last = batch.pack;
        store_->Release(batch.pack, local() % 20 != 0);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& [batch, payloads] : written) ExpectHolds("d", batch, payloads);
  store_.reset();
  EXPECT_EQ(registry_.sealed().size(), registry_.announced().size());
}

TEST_P(PackStoreContract, APackThatCouldNotBeIndexedIsSealed) {
  const WrittenBatch batch = Write("d", {"a"});
  EXPECT_FALSE(registry_.IsSealed(batch.pack));
  store_->Release(batch.pack, false);
  EXPECT_TRUE(registry_.IsSealed(batch.pack));
  EXPECT_NE(WriteAndRelease("d", {"b"}, &batch.pack).pack, batch.pack);
}

TEST_P(PackStoreContract, APackIsAnnouncedBeforeAnyOfItExists) {
  int looked = 0;
  RecordingRegistry nobody;
  const std::unique_ptr<PackStore> other = OpenAnother(nobody);
  registry_.on_announce = [&](const PackId& pack, std::string_view domain) -> absl::Status {
    ++looked;
    EXPECT_EQ(domain, "d");
    EXPECT_THAT(other->List().value(), IsEmpty());
    std::byte byte{};
    EXPECT_EQ(other->Read("d", pack, 0, {&byte, 1}).code(), absl::StatusCode::kNotFound);
    return absl::OkStatus();
  };
  const WrittenBatch batch = WriteAndRelease("d", {"a"});
  EXPECT_EQ(looked, 1);
  EXPECT_TRUE(registry_.announced().contains(batch.pack));
  WriteAndRelease("d", {"b"}, &batch.pack);
  EXPECT_EQ(looked, 1);
}

TEST_P(PackStoreContract, APackThatCannotBeAnnouncedIsNotMade) {
  const absl::Status error = MakeError(absl::StatusCode::kAborted, "CONFLICT", "the row cannot be written");
  registry_.on_announce = [&](const PackId&, std::string_view) { return error; };
  for (std::size_t i = 0; i < 2 * setup_.max_open_packs; ++i) EXPECT_EQ(TryWrite("d", {"a"}).status(), error);
  EXPECT_THAT(List(), IsEmpty());
  EXPECT_THAT(registry_.sealed(), IsEmpty());  // there is no row to write it into
  registry_.on_announce = nullptr;
  ExpectHolds("d", WriteAndRelease("d", {"a"}), {"a"});
}

TEST_P(PackStoreContract, APackOfItsTargetSizeIsSealed) {
  setup_.target_size_bytes = 64 << 10;
  Reopen();
  const std::string payload(10'000, 'p');
  std::map<PackId, std::uint64_t> ends;
  PackId last{};
  for (int i = 0; i < 30; ++i) {
    const WrittenBatch batch = Write("d", {payload}, &last);
    EXPECT_FALSE(registry_.IsSealed(batch.pack));
    store_->Release(batch.pack, true);
    EXPECT_EQ(registry_.IsSealed(batch.pack), batch.end >= setup_.target_size_bytes);
    ends[batch.pack] = batch.end;
    last = batch.pack;
  }
  EXPECT_THAT(ends, SizeIs(5));
  for (const auto& [pack, end] : ends) EXPECT_LT(end, setup_.target_size_bytes + 2 * payload.size());
}

TEST_P(PackStoreContract, ABatchIsNeverSplit) {
  setup_.target_size_bytes = 64 << 10;
  Reopen();
  const std::vector<std::string> payloads(10, std::string(20'000, 'p'));
  ExpectHolds("d", WriteAndRelease("d", payloads), payloads);
}

TEST_P(PackStoreContract, EveryPackIsSealedOnceWhenTheStoreIsClosed) {
  std::vector<WrittenBatch> batches;
  for (int i = 0; i < 3; ++i) batches.push_back(Write("d", {"a"}));
  for (const WrittenBatch& batch : batches) store_->Release(batch.pack, true);
  EXPECT_THAT(registry_.sealed(), IsEmpty());
  store_.reset();
  EXPECT_THAT(registry_.sealed(), SizeIs(3));
}

TEST_P(PackStoreContract, WhatIsNotThereIsNotFound) {
  const WrittenBatch batch = WriteAndRelease("d", {"a"});
  EXPECT_EQ(Read("d", PackId{}, 0, 1).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Read("never", batch.pack, 0, 1).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Read("d", batch.pack, 0, 1).status(), IsOk());
  EXPECT_EQ(Read("never", batch.pack, 0, 1).status().code(), absl::StatusCode::kNotFound);
}

TEST_P(PackStoreContract, ReadingBeyondTheEndIsOutOfRange) {
  const WrittenBatch batch = WriteAndRelease("d", {"abc"});
  EXPECT_EQ(Read("d", batch.pack, batch.end - 3, 3).value(), "abc");
  EXPECT_EQ(Read("d", batch.pack, batch.end - 3, 3 + kBlock).status().code(), absl::StatusCode::kOutOfRange);
  for (const std::uint64_t offset :
       {batch.end + kBlock, std::uint64_t{1} << 40, std::uint64_t{1} << 63, std::numeric_limits<std::uint64_t>::max()})
    EXPECT_EQ(Read("d", batch.pack, offset, 1).status().code(), absl::StatusCode::kOutOfRange) << offset;
}

TEST_P(PackStoreContract, ManyReadWhileOneWrites) {
  constexpr int kBatches = 50;
  std::vector<WrittenBatch> batches(kBatches);
  std::atomic<int> written = 0;
  const auto payload = [](int i) {
    return absl::StrCat("payload ", i, std::string(static_cast<std::size_t>(i) * 50, 'x'));
  };
  std::vector<std::thread> readers;
  for (int t = 0; t < 4; ++t) {
    readers.emplace_back([&, t] {
      for (int i = 0; i < kBatches;) {
        if (written <= i) {
          std::this_thread::yield();
          continue;
        }
        const int which = (i + t * 7) % (i + 1);
        ExpectHolds("d", batches[static_cast<std::size_t>(which)], {payload(which)});
        ++i;
      }
    });
  }
  for (int i = 0; i < kBatches; ++i) {
    batches[static_cast<std::size_t>(i)] = WriteAndRelease("d", {payload(i)});
    ++written;
  }
  for (std::thread& reader : readers) reader.join();
}

TEST_P(PackStoreContract, ADeletedPackIsGoneAndDeletingItAgainIsOk) {
  const WrittenBatch batch = Write("d", {"a"});
  store_->Release(batch.pack, false);
  const WrittenBatch other = WriteAndRelease("d", {"b"});
  ExpectHolds("d", batch, {"a"});
  EXPECT_THAT(store_->Delete("d", batch.pack), IsOk());
  EXPECT_EQ(Read("d", batch.pack, 0, 1).status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(List().contains(batch.pack));
  EXPECT_THAT(store_->Delete("d", batch.pack), IsOk());
  EXPECT_THAT(store_->Delete("never", batch.pack), IsOk());
  ExpectHolds("d", other, {"b"});
}

TEST_P(PackStoreContract, APackIsDeletedInItsDomainOnly) {
  const WrittenBatch batch = Write("d", {"a"});
  store_->Release(batch.pack, false);
  EXPECT_THAT(store_->Delete("other", batch.pack), IsOk());
  ExpectHolds("d", batch, {"a"});
}

TEST_P(PackStoreContract, EveryPackIsListedWithDomainAndSize) {
  EXPECT_THAT(List(), IsEmpty());
  const WrittenBatch open = WriteAndRelease("d", {"a", std::string(9999, 'b')});
  const WrittenBatch other = WriteAndRelease("other.1", {"c"});
  const WrittenBatch sealed = Write("d", {"x"}, nullptr);
  store_->Release(sealed.pack, false);
  const WrittenBatch busy = Write("d", {"y"});
  store_->Release(busy.pack, true);
  const auto listed = List();
  std::map<PackId, std::uint64_t> ends;
  for (const WrittenBatch* batch : {&open, &other, &sealed, &busy}) ends[batch->pack] = batch->end;
  EXPECT_EQ(listed.size(), ends.size());
  for (const auto& [pack, end] : ends) ExpectSize(listed.at(pack), end);
  EXPECT_EQ(listed.at(other.pack).domain, "other.1");
  EXPECT_EQ(listed.at(open.pack).domain, "d");
}

TEST_P(PackStoreContract, APackThatNobodyWritesToIsSealed) {
  const WrittenBatch busy = Write("d", {"a"});
  const WrittenBatch idle = WriteAndRelease("d", {"b"});
  const WrittenBatch other = WriteAndRelease("other", {"c"});
  clock_.Advance(setup_.seal_idle_after / 2);
  WriteAndRelease("other", {"d"}, &other.pack);
  store_->SealIdle();
  EXPECT_THAT(registry_.sealed(), IsEmpty());
  clock_.Advance(setup_.seal_idle_after / 2);
  store_->SealIdle();
  EXPECT_THAT(registry_.sealed(), testing::ElementsAre(testing::Pair(idle.pack, 1)));
  EXPECT_NE(WriteAndRelease("d", {"e"}, &idle.pack).pack, idle.pack);
  clock_.Advance(setup_.seal_idle_after);
  store_->SealIdle();
  EXPECT_TRUE(registry_.IsSealed(other.pack));
  EXPECT_FALSE(registry_.IsSealed(busy.pack));
  store_->Release(busy.pack, true);
  ExpectHolds("d", idle, {"b"});
}

TEST_P(PackStoreContract, DomainsShareNoPacks) {
  std::map<PackId, std::string> domains;
  for (int round = 0; round < 3; ++round) {
    for (const char* domain : {"a", "b", "ab"}) {
      const WrittenBatch batch = WriteAndRelease(domain, {"same"});
      EXPECT_EQ(domains.emplace(batch.pack, domain).first->second, domain);
    }
  }
  EXPECT_EQ(registry_.announced(), domains);
}

TEST_P(PackStoreContract, AnotherStoreReadsWhatWasWrittenAndWritesElsewhere) {
  const WrittenBatch before = WriteAndRelease("d", {"a"});
  Reopen();
  EXPECT_NE(WriteAndRelease("d", {"b"}, &before.pack).pack, before.pack);
  ExpectHolds("d", before, {"a"});
  ExpectSize(List().at(before.pack), before.end);
}

}  // namespace
}  // namespace ckpt::storage
