// Packs whose files were cut or removed, in a whole store. What finds that while one is written is in
// file_pack_store_test.cc, what two transactions do to each other in pack_interleaving_test.cc.
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "storage/failing_disk_fixture.h"
#include "storage/manifest_record.h"
#include "storage/store_fixture.h"

namespace ckpt::storage {
namespace {

class LostPack : public StoreTest {
 protected:
  std::filesystem::path FileOf(const PackId& pack) const {
    return options_.dir / "packs" / "default" / (pack.ToHex() + ".pack");
  }
  bool IsQuarantined(const PackId& pack) { return Get<v1::PackRow>(keys::Pack(pack)).quarantined(); }
};

TEST_F(LostPack, OneThatAStartFindsIsNotReliedOn) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status(), IsOk());
  const PackId pack = PackIdOf(ChunkRowOf(Data('a')));
  CloseStore();
  const std::filesystem::path file = FileOf(pack);
  std::filesystem::rename(file, dir_ / "moved");
  OpenStore();
  EXPECT_TRUE(IsQuarantined(pack));
  CloseStore();
  std::filesystem::rename(dir_ / "moved", file);
  OpenStore();
  EXPECT_FALSE(IsQuarantined(pack)) << "its file is there again";
  CloseStore();
  std::filesystem::resize_file(file, 5000);
  OpenStore();
  EXPECT_TRUE(IsQuarantined(pack));
  EXPECT_THAT(Restore("r@1").status(), HasReason("DATA_DAMAGED"));
  // Saving it again heals it.
  ASSERT_THAT(Save(BeginOf("r", 2), {{"m.a", Data('a')}}).status(), IsOk());
  EXPECT_EQ(Restore("r@2").value()["m.a"], Data('a'));
}

TEST_F(LostPack, OneThatARestoreFindsIsNotReliedOn) {
  const auto cut = [](const std::filesystem::path& file) { std::filesystem::resize_file(file, 5000); };
  const auto remove = [](const std::filesystem::path& file) { std::filesystem::remove(file); };
  int epoch = 0;
  for (const std::function<void(const std::filesystem::path&)>& lose :
       std::vector<std::function<void(const std::filesystem::path&)>>{cut, remove}) {
    CloseStore();
    OpenStore();  // what is there is sealed
    const std::string name = absl::StrCat("r@", ++epoch);
    ASSERT_THAT(Save(BeginOf("r", epoch), {{"m.a", Data('a')}, {"m.b", Data('b')}}).status(), IsOk());
    const PackId pack = PackIdOf(ChunkRowOf(Data('a')));
    CloseStore();
    OpenStore();
    EXPECT_THAT(Restore(name).status(), IsOk());  // which opens the file
    lose(FileOf(pack));
    EXPECT_FALSE(IsQuarantined(pack));
    EXPECT_THAT(Restore(name).status(), HasReason("DATA_DAMAGED"));
    EXPECT_TRUE(IsQuarantined(pack)) << "with all of its records, of which that has read one";
    // One save has all that is gone.
    ASSERT_THAT(Save(BeginOf("r", ++epoch), {{"m.a", Data('a')}, {"m.b", Data('b')}}).status(), IsOk());
    EXPECT_EQ(Restore(absl::StrCat("r@", epoch)).value()["m.b"], Data('b'));
    EXPECT_EQ(Restore(name).value()["m.a"], Data('a'));
  }
}

TEST_F(LostPack, OneThatComesBackIsReliedOnAgain) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status(), IsOk());
  const PackId pack = PackIdOf(ChunkRowOf(Data('a')));
  CloseStore();
  OpenStore();
  std::filesystem::rename(FileOf(pack), dir_ / "moved");
  EXPECT_THAT(Restore("r@1").status(), HasReason("DATA_DAMAGED"));
  EXPECT_TRUE(IsQuarantined(pack));
  std::filesystem::rename(dir_ / "moved", FileOf(pack));
  CloseStore();
  OpenStore();
  const std::string digest(Sha256(Data('a')).view());
  EXPECT_EQ(Begin(BeginOf("r", 2))->Have(digest).value(), std::string(1, '\0')) << "no record of it was marked";
}

TEST_F(LostPack, ARecordOfOneThatIsOpenIsMarkedItself) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status(), IsOk());
  const PackId pack = PackIdOf(ChunkRowOf(Data('a')));
  const RecordName record{false, Sha256(Data('a'))};
  const absl::Status gone = absl::NotFoundError("gone");
  EXPECT_TRUE(
      absl::IsDataLoss(NoteUnreadable(*store_, "default", record, pack, ChunkRowOf(Data('a')).offset(), {}, gone)));
  EXPECT_FALSE(IsQuarantined(pack));
  EXPECT_TRUE(ChunkRowOf(Data('a')).quarantined());
}

TEST_F(LostPack, OneThatWasCutWhileItWasWrittenIsSeenByTheNextStart) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status(), IsOk());
  const PackId pack = PackIdOf(ChunkRowOf(Data('a')));
  int writes = 0;
  std::optional<FailingDisk> disk(pack.ToHex());
  disk->LimitBytes(16384);
  disk->After("pwrite", [&] {
    if (++writes == 2) std::filesystem::resize_file(FileOf(pack), 5000);
  });
  char seed = 'b';
  for (; writes < 2 && seed < 'z'; ++seed) {  // it may be another pack's turn
    ASSERT_THAT(Save(BeginOf("r", seed), {{"m.b", Data(seed, 20)}}).status(), IsOk());
  }
  disk.reset();
  EXPECT_TRUE(IsQuarantined(pack));
  EXPECT_TRUE(Restore("r:latest").value()["m.b"] == Data(static_cast<char>(seed - 1), 20));
  CloseStore();
  OpenStore();
  EXPECT_TRUE(IsQuarantined(pack));
  ASSERT_THAT(Save(BeginOf("r", 2), {{"m.a", Data('a')}}).status(), IsOk());
  EXPECT_EQ(Restore("r@1").value()["m.a"], Data('a'));
}

TEST_F(LostPack, OneOfWhichNothingCountsIsNotQuarantined) {
  const PackId pack = *PackId::From(RandomBytes(PackId::kSize));
  ASSERT_THAT(store_->pack_table().Announce(pack, "default"), IsOk());
  ASSERT_THAT(store_->pack_table().Lost(pack), IsOk());
  EXPECT_TRUE(Get<v1::PackRow>(keys::Pack(pack)).sealed());
  EXPECT_FALSE(IsQuarantined(pack));
}

TEST_F(LostPack, OneThatIsOpenIsLeftToItsWriter) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status(), IsOk());
  const PackId pack = PackIdOf(ChunkRowOf(Data('a')));
  EXPECT_FALSE(store_->pack_table().FoundShort(pack).value());
  EXPECT_FALSE(Get<v1::PackRow>(keys::Pack(pack)).sealed());
  EXPECT_FALSE(IsQuarantined(pack));
}

}  // namespace
}  // namespace ckpt::storage
