// What a restore says when the stored bytes cannot be read. What it gives when they can: protocol_test.cc.
#include "storage/restore_reader.h"

#include <cerrno>
#include <fstream>
#include <functional>
#include <set>

#include "absl/strings/str_cat.h"
#include "storage/failing_disk_fixture.h"
#include "storage/store_fixture.h"

namespace ckpt::storage {
namespace {

using testing::HasSubstr;

class RestoreReaderTest : public StoreTest {
 protected:
  RestoreReaderTest() {
    CloseStore();
    options_.pack_target_bytes = 1;  // each batch is a pack of its own
    OpenStore();
    CKPT_CHECK_OK(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status());
    CKPT_CHECK_OK(Save(BeginOf("r", 2), {{"m.a", Data('a')}, {"m.b", "inline"}}).status());
  }

  // The pack with the chunk of both; the second's manifest lies in another.
  std::filesystem::path ChunkFile() {
    return options_.dir / "packs" / "default" / (PackIdOf(ChunkRowOf(Data('a'))).ToHex() + ".pack");
  }
  std::filesystem::path ManifestFile(const std::string& reference) {
    v1::RestoreBegin begin;
    begin.set_reference(reference);
    const auto digest =
        *Digest::From(RestoreReader::Open(*store_, begin).value()->header().checkpoint().manifest_digest());
    const auto row = store_->chunks().Locate("default", {{true, digest}}).value().front();
    CloseStore();  // and with it the files that are open for reading
    OpenStore();
    return options_.dir / "packs" / "default" / (PackIdOf(row).ToHex() + ".pack");
  }
};

void FlipBit(const std::filesystem::path& path, std::uint64_t offset) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset));
  const int byte = file.get();
  CKPT_CHECK(byte >= 0);
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(static_cast<char>(byte ^ 1));
  CKPT_CHECK(file.flush().good());
}

// A link to itself can be opened by nobody; rights mean nothing to root.
void MakeInaccessible(const std::filesystem::path& file) {
  std::filesystem::remove(file);
  std::filesystem::create_symlink(file, file);
}

TEST_F(RestoreReaderTest, AChunkThatCannotBeGotAtIsNotCalledDamaged) {
  MakeInaccessible(ChunkFile());
  const absl::Status status = Restore("r@2").status();
  EXPECT_THAT(status, IsError(absl::StatusCode::kInternal, "IO_ERROR"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("run r epoch 2 version 1, tensor m.a chunk 0"));
}

TEST_F(RestoreReaderTest, AManifestThatCannotBeGotAtIsNotCalledDamaged) {
  MakeInaccessible(ManifestFile("r@2"));
  const absl::Status status = Restore("r@2").status();
  EXPECT_THAT(status, IsError(absl::StatusCode::kInternal, "IO_ERROR"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("run r epoch 2 version 1, its manifest"));
}

TEST_F(RestoreReaderTest, AChunkThatIsGoneOrCutOrFailsIsDamaged) {
  const auto expect_damaged = [&] {
    const absl::Status status = Restore("r@2").status();
    EXPECT_THAT(status, IsError(absl::StatusCode::kDataLoss, "DATA_DAMAGED"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("run r epoch 2 version 1, tensor m.a chunk 0"));
  };
  {
    FailingDisk disk(ChunkFile());
    disk.Fail("pread", EIO);
    expect_damaged();
  }
  EXPECT_THAT(Restore("r@2").status(), IsOk());
  std::filesystem::resize_file(ChunkFile(), kPackHeaderSize + 1);
  expect_damaged();
  const std::filesystem::path file = ChunkFile();
  CloseStore();
  std::filesystem::remove(file);
  OpenStore();
  expect_damaged();
}

TEST_F(RestoreReaderTest, ADamagedRecordCountsAsMissingUntilASaveHealsIt) {
  const std::vector<std::pair<std::string, std::function<std::filesystem::path()>>> kinds = {
      {"tensor m.a chunk 0", [&] { return ChunkFile(); }}, {"its manifest", [&] { return ManifestFile("r@2"); }}};
  for (const auto& [what, file] : kinds) {
    for (const std::uint64_t in_record : {std::uint64_t{20}, std::uint64_t{kRecordHeaderSize}}) {
      SCOPED_TRACE(absl::StrCat(what, " ", in_record));
      FlipBit(file(), kPackHeaderSize + in_record);
      if (what == "its manifest" && in_record < kRecordHeaderSize) {  // only its payload is read
        EXPECT_THAT(Restore("r@2").status(), IsOk());
        continue;
      }
      const absl::Status status = Restore("r@2").status();
      EXPECT_THAT(status, IsError(absl::StatusCode::kDataLoss, "DATA_DAMAGED"));
      EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("run r epoch 2 version 1, ", what)));
      EXPECT_THAT(Save(BeginOf("r", 3), {{"m.a", Data('a')}, {"m.b", "inline"}}).status(), IsOk());
      EXPECT_THAT(Restore("r@1").status(), IsOk());
      EXPECT_THAT(Restore("r@2").status(), IsOk());
      EXPECT_THAT(Restore("r@3").status(), IsOk());
    }
  }
}

TEST_F(RestoreReaderTest, AChunkThatHealedSinceThePlanIsReadWhereItIs) {
  v1::RestoreBegin begin;
  begin.set_reference("r@1");
  const auto reader = *RestoreReader::Open(*store_, begin);
  while (reader->NextPart().value().has_value()) continue;
  ASSERT_THAT(reader->PlanSelected().status(), IsOk());
  const std::vector<ChunkToRead> plan = reader->plan();
  FlipBit(ChunkFile(), kPackHeaderSize + kRecordHeaderSize);
  ASSERT_THAT(Restore("r@2").status(), HasReason("DATA_DAMAGED"));
  ASSERT_THAT(Save(BeginOf("r", 3), {{"m.a", Data('a')}}).status(), IsOk());
  std::string record(kRecordHeaderSize + plan.at(0).stored_length, '\0');
  EXPECT_THAT(reader->Read(plan[0], std::as_writable_bytes(std::span(record)), true), IsOk());
  EXPECT_EQ(record.substr(kRecordHeaderSize), Data('a'));
}

TEST_F(RestoreReaderTest, SelectsByComponentAndGlob) {
  ASSERT_THAT(Save(BeginOf("s", 1), {{"m.a", Data('a')}, {"m.b", Data('b')}, {"o.a", Data('c')}}).status(), IsOk());
  const auto selected = [&](std::vector<std::string> components, std::vector<std::string> include) {
    v1::RestoreBegin begin;
    begin.set_reference("s@1");
    begin.mutable_components()->Add(components.begin(), components.end());
    begin.mutable_include()->Add(include.begin(), include.end());
    const auto reader = RestoreReader::Open(*store_, begin).value();
    while (reader->NextPart().value().has_value()) continue;
    CKPT_CHECK_OK(reader->PlanSelected().status());
    std::set<std::uint64_t> tensors;
    for (const ChunkToRead& chunk : reader->plan()) tensors.insert(chunk.tensor);
    return tensors;
  };
  EXPECT_THAT(selected({}, {}), testing::ElementsAre(0, 1, 2));
  EXPECT_THAT(selected({"m"}, {}), testing::ElementsAre(0, 1));
  EXPECT_THAT(selected({}, {"*.a"}), testing::ElementsAre(0, 2));
  EXPECT_THAT(selected({"o"}, {"*.a", "m.b"}), testing::ElementsAre(2));
  v1::RestoreBegin begin;
  begin.set_reference("s@1");
  begin.add_components("x");
  EXPECT_THAT(RestoreReader::Open(*store_, begin).status(), HasReason("COMPONENT_NOT_FOUND"));
  begin.set_components(0, "m");
  EXPECT_THAT(RestoreReader::Open(*store_, begin, [] { return true; }).status(), HasReason("STREAM_ENDED"));
}

TEST_F(RestoreReaderTest, WhatCannotBeGotAtDoesNotCountAsMissing) {
  const PackId pack = PackIdOf(ChunkRowOf(Data('a')));
  MakeInaccessible(ChunkFile());
  EXPECT_THAT(Restore("r@2").status(), IsError(absl::StatusCode::kInternal, "IO_ERROR"));
  EXPECT_FALSE(ChunkRowOf(Data('a')).quarantined());
  EXPECT_EQ(PackIdOf(ChunkRowOf(Data('a'))), pack);
}

}  // namespace
}  // namespace ckpt::storage
