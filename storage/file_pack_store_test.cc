// What only packs in files have. What every pack store has: pack_store_contract_test.cc.
#include "storage/file_pack_store.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <fstream>
#include <functional>
#include <iterator>
#include <thread>

#include "storage/failing_disk_fixture.h"
#include "storage/fresh_folder_fixture.h"
#include "storage/status_matchers_fixture.h"

namespace ckpt::storage {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

std::string ContentOf(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void WriteFile(const std::filesystem::path& path, std::string_view content) {
  std::ofstream(path, std::ios::binary) << content;
}

class FilePackStoreTest : public testing::Test, public PackRegistry {
 protected:
  FilePackStoreTest() { Reopen(); }

  absl::Status Announce(const PackId&, std::string_view) override { return absl::OkStatus(); }
  absl::Status Sealed(const PackId& pack) override {
    sealed_.push_back(pack);
    return absl::OkStatus();
  }
  absl::Status Lost(const PackId& pack) override {
    lost_.push_back(pack);
    return lost_status_;
  }

  void Reopen() {
    store_.reset();
    sealed_.clear();
    store_ = FilePackStore::Open({.root = root_}, *this).value();
  }

  absl::StatusOr<WrittenBatch> TryWrite(std::string_view payload, const PackId* prefer = nullptr) {
    const Bytes piece = AsBytes(payload);
    const Record record = MakeRecord(RecordKind::kChunk, {&piece, 1});
    return store_->Write("d", {&record, 1}, prefer);
  }
  WrittenBatch Write(std::string_view payload, const PackId* prefer = nullptr) {
    WrittenBatch batch = TryWrite(payload, prefer).value();
    store_->Release(batch.pack, true);
    return batch;
  }

  std::filesystem::path FileOf(const PackId& pack) const { return root_ / "d" / (pack.ToHex() + ".pack"); }

  absl::StatusOr<std::string> Payload(const WrittenBatch& batch) const {
    std::string out(batch.locations[0].stored_length, '\0');
    CKPT_RETURN_IF_ERROR(store_->Read("d", batch.pack, batch.locations[0].offset + kRecordHeaderSize,
                                      std::as_writable_bytes(std::span(out))));
    return out;
  }

  const FreshFolder folder_;
  const std::filesystem::path root_ = folder_.path() / "new" / "packs";
  std::vector<PackId> sealed_;
  std::vector<PackId> lost_;
  absl::Status lost_status_;
  std::unique_ptr<FilePackStore> store_;
};

TEST_F(FilePackStoreTest, APackIsTheFileThatTheFormatNames) {
  const WrittenBatch batch = Write("payload");
  EXPECT_EQ(batch.pack.ToHex().size(), 32);
  const std::string content = ContentOf(FileOf(batch.pack));
  ASSERT_EQ(content.size(), 2 * BlockFile::kBlock);
  EXPECT_EQ(content.substr(0, 8), "CKPTPACK");
  EXPECT_EQ(content.substr(12, 16), batch.pack.view());
  EXPECT_EQ(content.substr(4096, 4), "CKR1");
  EXPECT_EQ(content.substr(4096 + 112, 7), "payload");
  EXPECT_EQ(content.find_first_not_of('\0', batch.end), content.npos);
}

TEST_F(FilePackStoreTest, PacksOfBeforeAreNeitherAppendedToNorCut) {
  const WrittenBatch before = Write("before");
  store_.reset();
  std::ofstream(FileOf(before.pack), std::ios::binary | std::ios::app) << "a torn tail";
  const std::string content = ContentOf(FileOf(before.pack));
  Reopen();
  for (int i = 0; i < 5; ++i) EXPECT_NE(Write("after", &before.pack).pack, before.pack);
  store_->SealIdle();
  Reopen();
  EXPECT_EQ(ContentOf(FileOf(before.pack)), content);
}

TEST_F(FilePackStoreTest, APackOfManyRecordsIsSealed) {
  const Bytes piece = AsBytes("x");
  const std::vector<Record> records(16384, MakeRecord(RecordKind::kChunk, {&piece, 1}));
  const WrittenBatch batch = store_->Write("d", records, nullptr).value();
  EXPECT_THAT(sealed_, IsEmpty());
  store_->Release(batch.pack, true);
  EXPECT_THAT(sealed_, ElementsAre(batch.pack));
  EXPECT_NE(Write("y", &batch.pack).pack, batch.pack);
}

TEST_F(FilePackStoreTest, StrayFilesAreNotListed) {
  const WrittenBatch batch = Write("payload");
  const std::string name = std::string(32, 'a');
  WriteFile(root_ / (name + ".pack"), "in no domain");
  for (const char* domain : {".snapshot", "lost+found"}) {
    std::filesystem::create_directory(root_ / domain);
    WriteFile(root_ / domain / (name + ".pack"), "in no domain's folder");
  }
  const std::filesystem::path domain = root_ / "d";
  WriteFile(domain / name, "no ending");
  WriteFile(domain / (name + ".pack.tmp"), "another ending");
  WriteFile(domain / (std::string(32, 'A') + ".pack"), "capitals");
  WriteFile(domain / (std::string(32, 'g') + ".pack"), "no digits");
  WriteFile(domain / (std::string(31, 'a') + ".pack"), "too short");
  WriteFile(domain / ".pack", "no id");
  std::filesystem::create_directory(domain / (std::string(32, 'b') + ".pack"));
  std::filesystem::create_symlink(folder_.path() / "nothing", domain / (std::string(32, 'c') + ".pack"));
  std::filesystem::create_symlink(folder_.path() / "nothing", root_ / "dangling");
  const auto listed = store_->List();
  ASSERT_THAT(listed.status(), IsOk());
  ASSERT_THAT(*listed, SizeIs(1));
  EXPECT_EQ((*listed)[0].pack, batch.pack);
  EXPECT_EQ((*listed)[0].domain, "d");
  EXPECT_EQ((*listed)[0].size_bytes, 2 * BlockFile::kBlock);
}

// To leave it out would be to call its checkpoints damaged.
TEST_F(FilePackStoreTest, WhatCannotBeLookedAtIsNotLeftOutOfTheList) {
  const std::filesystem::path domain = root_ / "e";
  std::filesystem::create_symlink(domain, domain);
  EXPECT_THAT(store_->List().status(), IsError(absl::StatusCode::kInternal, "IO_ERROR"));
  std::filesystem::remove(domain);
  const std::filesystem::path file = FileOf(Write("payload").pack);
  std::filesystem::remove(file);
  std::filesystem::create_symlink(file, file);
  EXPECT_THAT(store_->List().status(), IsError(absl::StatusCode::kInternal, "IO_ERROR"));
}

TEST_F(FilePackStoreTest, ListingWhatIsBeingDeletedLeavesItOut) {
  std::vector<PackId> packs;
  for (int i = 0; i < 60; ++i) {
    packs.push_back(TryWrite("x")->pack);
    store_->Release(packs.back(), false);
  }
  std::thread deleting([&] {
    for (const PackId& pack : packs) EXPECT_THAT(store_->Delete("d", pack), IsOk());
  });
  while (true) {
    const auto listed = store_->List();
    EXPECT_THAT(listed.status(), IsOk());
    if (!listed.ok() || listed->empty()) break;
    for (const PackStore::Listed& pack : *listed) EXPECT_LT(pack.size_bytes, 1 << 20);
  }
  deleting.join();
}

TEST_F(FilePackStoreTest, ARootThatCannotBeMadeSaysSo) {
  WriteFile(folder_.path() / "file", "");
  EXPECT_THAT(FilePackStore::Open({.root = folder_.path() / "file" / "packs"}, *this).status(),
              IsError(absl::StatusCode::kInternal, "IO_ERROR"));
}

TEST_F(FilePackStoreTest, AFolderThatCannotBeWrittenSaysSo) {
  WriteFile(root_ / "d", "where the domain's folder should be");
  EXPECT_THAT(TryWrite("a").status(), IsError(absl::StatusCode::kInternal, "IO_ERROR"));
  EXPECT_THAT(sealed_, SizeIs(1));
  std::filesystem::remove(root_ / "d");
  EXPECT_EQ(Payload(Write("a")).value(), "a");
}

TEST_F(FilePackStoreTest, AMissingFileSaysSo) {
  const WrittenBatch batch = Write("a");
  Reopen();
  std::filesystem::remove(FileOf(batch.pack));
  EXPECT_THAT(Payload(batch).status(), IsError(absl::StatusCode::kNotFound, "PACK_MISSING"));
}

TEST_F(FilePackStoreTest, AFileThatWasCutSaysSo) {
  const WrittenBatch batch = Write("abc");
  std::filesystem::resize_file(FileOf(batch.pack), batch.end - 1);
  EXPECT_THAT(Payload(batch).status(), IsError(absl::StatusCode::kOutOfRange, "PACK_DAMAGED"));
}

TEST_F(FilePackStoreTest, AReadErrorOfTheDiskIsDataLoss) {
  const WrittenBatch batch = Write("abc");
  FailingDisk disk(batch.pack.ToHex());
  disk.Fail("pread", EIO);
  EXPECT_THAT(Payload(batch).status(), IsError(absl::StatusCode::kDataLoss, "IO_ERROR"));
  disk.Fail("pread", 0);
  EXPECT_EQ(Payload(batch).value(), "abc");
}

// A name in a folder is durable when the folder is synced, whoever has made it.
TEST_F(FilePackStoreTest, AWriteSyncsTheFileAndEveryFolderAboveIt) {
  FailingDisk disk(folder_.path());
  for (int round = 0; round < 2; ++round) {
    Reopen();
    const std::size_t before = disk.calls().size();
    const WrittenBatch batch = Write("a");
    Write("b", &batch.pack);
    auto calls = disk.calls();
    calls.erase(calls.begin(), calls.begin() + static_cast<std::ptrdiff_t>(before));
    const std::string file = FileOf(batch.pack);
    EXPECT_THAT(calls, ElementsAre("pwrite " + file, "fsync " + (root_ / "d").string(), "fsync " + root_.string(),
                                   "pwrite " + file, "fdatasync " + file,  //
                                   "pwrite " + file, "fdatasync " + file));
  }
}

TEST_F(FilePackStoreTest, OpeningSyncsTheFolderThatHoldsTheRoot) {
  const FailingDisk disk(folder_.path());
  Reopen();
  EXPECT_THAT(disk.calls(), ElementsAre("fsync " + root_.parent_path().string()));
}

TEST_F(FilePackStoreTest, AFileThatFailedIsSealedAndNeverWrittenAgain) {
  for (const char* call : {"pwrite", "fdatasync"}) {
    const WrittenBatch batch = Write("a");
    sealed_.clear();
    FailingDisk disk(batch.pack.ToHex());
    disk.Fail(call, EIO);
    EXPECT_THAT(TryWrite("b", &batch.pack).status(), IsError(absl::StatusCode::kInternal, "IO_ERROR"));
    EXPECT_THAT(sealed_, ElementsAre(batch.pack));
    disk.Fail(call, 0);
    const std::size_t before = disk.calls().size();
    EXPECT_NE(Write("c", &batch.pack).pack, batch.pack);
    EXPECT_THAT(disk.calls(), SizeIs(before));
    EXPECT_EQ(Payload(batch).value(), "a");
  }
}

TEST_F(FilePackStoreTest, AFileThatWasCutOrMovedIsNotWrittenAgain) {
  const WrittenBatch cut = Write("a");
  std::filesystem::resize_file(FileOf(cut.pack), cut.end - 1);
  const WrittenBatch moved = Write("b", &cut.pack);
  EXPECT_NE(moved.pack, cut.pack);
  EXPECT_THAT(lost_, ElementsAre(cut.pack));
  EXPECT_EQ(std::filesystem::file_size(FileOf(cut.pack)), cut.end - 1) << "the next start sees it";
  std::filesystem::rename(FileOf(moved.pack), root_ / "elsewhere");
  const WrittenBatch whole = Write("c", &moved.pack);
  EXPECT_NE(whole.pack, moved.pack);
  EXPECT_EQ(Payload(whole).value(), "c");
  EXPECT_THAT(lost_, ElementsAre(cut.pack, moved.pack));
  EXPECT_THAT(sealed_, IsEmpty());
}

TEST_F(FilePackStoreTest, AFileThatCannotBeLookedAtIsNotTakenForLost) {
  const WrittenBatch batch = Write("a");
  FailingDisk disk(batch.pack.ToHex());
  disk.Fail("stat", EIO);
  EXPECT_EQ(Write("b", &batch.pack).pack, batch.pack);
  store_->SealIdle();
  EXPECT_EQ(Payload(batch).value(), "a");
  EXPECT_EQ(Payload(batch).value(), "a");
  EXPECT_THAT(lost_, IsEmpty());
}

TEST_F(FilePackStoreTest, AFileThatIsGoneIsNotReadFromMemoryOfIt) {
  const WrittenBatch batch = Write("a");
  EXPECT_EQ(Payload(batch).value(), "a");
  std::filesystem::rename(FileOf(batch.pack), root_ / "elsewhere");
  EXPECT_THAT(Payload(batch).status(), IsError(absl::StatusCode::kNotFound, "PACK_MISSING"));
  std::filesystem::rename(root_ / "elsewhere", FileOf(batch.pack));
  EXPECT_EQ(Payload(batch).value(), "a");
  std::filesystem::rename(root_ / "d", root_ / "elsewhere");
  WriteFile(root_ / "d", "a file where the folder was");
  EXPECT_THAT(Payload(batch).status(), IsError(absl::StatusCode::kNotFound, "PACK_MISSING"));
}

TEST_F(FilePackStoreTest, WhatIsWrittenWhileTheFileIsLostIsWrittenAgain) {
  const std::string payload(20'000, 'x');
  const auto cut = [](const std::filesystem::path& file) { std::filesystem::resize_file(file, 5000); };
  const auto remove = [](const std::filesystem::path& file) { std::filesystem::remove(file); };
  for (const std::function<void(const std::filesystem::path&)>& lose :
       std::vector<std::function<void(const std::filesystem::path&)>>{cut, remove}) {
    const WrittenBatch before = Write(payload);
    lost_.clear();
    FailingDisk disk(before.pack.ToHex());
    disk.LimitBytes(BlockFile::kBlock);
    int calls = 0;
    disk.After("pwrite", [&] {
      if (++calls == 3) lose(FileOf(before.pack));
    });
    const WrittenBatch batch = Write(payload, &before.pack);
    EXPECT_NE(batch.pack, before.pack);
    EXPECT_THAT(lost_, ElementsAre(before.pack));
    EXPECT_TRUE(Payload(batch).value() == payload);
  }
}

TEST_F(FilePackStoreTest, WhereAllThatIsWrittenIsLostAWriteFails) {
  FailingDisk disk("/d/");
  disk.After("fdatasync", [&] { std::filesystem::remove_all(root_ / "d"); });
  const absl::Status status = TryWrite("a").status();
  EXPECT_THAT(status, IsError(absl::StatusCode::kInternal, "IO_ERROR"));
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr((root_ / "d").string()));
  disk.After("fdatasync", nullptr);
  EXPECT_EQ(Payload(Write("b")).value(), "b");
}

TEST_F(FilePackStoreTest, AFileThatWasCutIsNotSealedAsIfItWereWhole) {
  const WrittenBatch cut = Write("a");
  std::filesystem::resize_file(FileOf(cut.pack), cut.end - 1);
  store_->SealIdle();
  EXPECT_THAT(lost_, ElementsAre(cut.pack)) << "at once, not when it has been idle";
  lost_.clear();
  const WrittenBatch removed = TryWrite("b").value();
  std::filesystem::remove(FileOf(removed.pack));
  store_->Release(removed.pack, false);
  EXPECT_THAT(lost_, ElementsAre(removed.pack));
  lost_.clear();
  const WrittenBatch last = Write("c");
  std::filesystem::remove(FileOf(last.pack));
  Reopen();
  EXPECT_THAT(lost_, ElementsAre(last.pack));
  EXPECT_THAT(sealed_, IsEmpty());
}

TEST_F(FilePackStoreTest, ThatAPackIsLostIsToldUntilItIsHeard) {
  const WrittenBatch lost = Write("a");
  std::filesystem::remove(FileOf(lost.pack));
  lost_status_ = absl::AbortedError("others are in the way");
  EXPECT_EQ(TryWrite("b").status(), lost_status_);
  store_->SealIdle();
  EXPECT_EQ(TryWrite("c", &lost.pack).status(), lost_status_);
  lost_status_ = absl::OkStatus();
  EXPECT_EQ(Payload(Write("d")).value(), "d");
  EXPECT_THAT(lost_, ElementsAre(lost.pack, lost.pack, lost.pack, lost.pack));
  const WrittenBatch last = Write("e");
  std::filesystem::remove(FileOf(last.pack));
  lost_status_ = absl::AbortedError("others are in the way");
  Reopen();
  lost_status_ = absl::OkStatus();
}

TEST_F(FilePackStoreTest, OneThatCannotBeSealedKeepsNoOtherFromIt) {
  for (const bool lost_first : {false, true}) {
    SCOPED_TRACE(lost_first);
    store_.reset();
    lost_status_ = absl::AbortedError("others are in the way");
    store_ = FilePackStore::Open({.root = root_, .seal_idle_after = std::chrono::milliseconds(0)}, *this).value();
    const WrittenBatch first = TryWrite("a").value();
    const WrittenBatch second = TryWrite("b").value();
    store_->Release(first.pack, true);
    store_->Release(second.pack, true);
    sealed_.clear();
    std::filesystem::remove(FileOf(lost_first ? first.pack : second.pack));
    store_->SealIdle();
    EXPECT_THAT(sealed_, ElementsAre(lost_first ? second.pack : first.pack));
  }
  lost_status_ = absl::OkStatus();
}

TEST_F(FilePackStoreTest, AFullDiskIsNamedAndTheNextWriteIsANewPack) {
  const WrittenBatch batch = Write("a");
  for (const int error : {ENOSPC, EDQUOT}) {
    FailingDisk disk("/d/");
    disk.Fail("pwrite", error);
    EXPECT_THAT(TryWrite("b").status(), IsError(absl::StatusCode::kResourceExhausted, "DISK_FULL"));
  }
  EXPECT_EQ(Payload(Write("c")).value(), "c");
  EXPECT_EQ(Payload(batch).value(), "a");
}

// The registry writes to the catalog, on the same disk.
TEST_F(FilePackStoreTest, AFullDiskIsToldBeforeTheRegistryHears) {
  std::vector<std::size_t> sealed_when_told;
  store_.reset();
  sealed_.clear();
  store_ = FilePackStore::Open({.root = root_, .on_full = [&] { sealed_when_told.push_back(sealed_.size()); }}, *this)
               .value();
  const WrittenBatch batch = Write("a");
  FailingDisk disk("/d/");
  disk.Fail("fdatasync", ENOSPC);
  EXPECT_FALSE(TryWrite("b", &batch.pack).ok());
  disk.Fail("pwrite", EDQUOT);
  EXPECT_FALSE(TryWrite("c").ok());  // in the header of a new pack
  EXPECT_THAT(sealed_when_told, ElementsAre(0, 1));
  disk.Fail("pwrite", EIO);
  EXPECT_FALSE(TryWrite("d").ok());
  EXPECT_THAT(sealed_, SizeIs(3));
  EXPECT_THAT(sealed_when_told, SizeIs(2));
}

TEST_F(FilePackStoreTest, AFolderThatCannotBeSyncedPromisesNothing) {
  FailingDisk disk("packs");
  disk.Fail("fsync", EIO);
  EXPECT_THAT(TryWrite("a").status(), IsError(absl::StatusCode::kInternal, "IO_ERROR"));
  EXPECT_THAT(sealed_, SizeIs(1));
}

TEST_F(FilePackStoreTest, ShortWritesAndReadsAreGoneOnWith) {
  FailingDisk disk("/d/");
  disk.LimitBytes(BlockFile::kBlock);
  std::string payload(20000, 'x');
  for (std::size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<char>(i * 31);
  const WrittenBatch batch = Write(payload);
  EXPECT_TRUE(Payload(batch).value() == payload);
  EXPECT_TRUE(ContentOf(FileOf(batch.pack)).substr(kPackHeaderSize + kRecordHeaderSize, payload.size()) == payload);
}

TEST_F(FilePackStoreTest, MoreFilesAreReadThanAreKeptOpen) {
  std::vector<WrittenBatch> batches;
  for (int i = 0; i < 140; ++i) {
    batches.push_back(TryWrite(std::to_string(i)).value());
    store_->Release(batches.back().pack, false);
  }
  for (int round = 0; round < 2; ++round)
    for (int i = 0; i < 140; ++i) EXPECT_EQ(Payload(batches[static_cast<std::size_t>(i)]).value(), std::to_string(i));
}

}  // namespace
}  // namespace ckpt::storage
