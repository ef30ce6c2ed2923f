// What a restore says when the stored bytes cannot be read. What it gives when they can: protocol_test.cc.
#include "storage/restore_reader.h"

#include <cerrno>

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

}  // namespace
}  // namespace ckpt::storage
