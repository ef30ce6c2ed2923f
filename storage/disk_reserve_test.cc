#include "storage/disk_reserve.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>
#include <optional>

#include "storage/failing_disk_fixture.h"
#include "storage/fresh_folder_fixture.h"
#include "storage/status_matchers_fixture.h"

namespace ckpt::storage {
namespace {

constexpr std::uint64_t kMib = 1 << 20;
constexpr std::uint64_t kReserve = 4 * kMib;
constexpr std::uint64_t kMargin = 2 * kMib;

const auto kFull = IsError(absl::StatusCode::kResourceExhausted, "DISK_FULL");

// The disk is real, how much of it is free is not.
class DiskReserveTest : public testing::Test {
 protected:
  DiskReserveTest() : disk_(folder_.path()) { disk_.SetFreeBytes(100 * kMib); }

  void Open(std::uint64_t reserve_bytes = kReserve) {
    reserve_.reset();
    reserve_ = DiskReserve::Open(folder_.path(), {.reserve_bytes = reserve_bytes, .margin_bytes = kMargin}).value();
  }
  [[nodiscard]] std::filesystem::path File() const { return folder_.path() / "reserve"; }

  const FreshFolder folder_;
  FailingDisk disk_;
  std::unique_ptr<DiskReserve> reserve_;
};

TEST_F(DiskReserveTest, TheReserveIsAFileThatHoldsItsSpace) {
  Open();
  ASSERT_EQ(std::filesystem::file_size(File()), kReserve);
  struct stat facts {};
  ASSERT_EQ(stat(File().c_str(), &facts), 0);
  EXPECT_GE(static_cast<std::uint64_t>(facts.st_blocks) * 512, kReserve);
  EXPECT_THAT(reserve_->Admit(kMib), IsOk());
}

TEST_F(DiskReserveTest, WhatWouldEatIntoTheMarginIsRefusedAndTheFileStays) {
  Open();
  disk_.SetFreeBytes(10 * kMib);
  EXPECT_THAT(reserve_->Admit(8 * kMib), IsOk());
  EXPECT_THAT(reserve_->Admit(8 * kMib + 1), kFull);
  EXPECT_THAT(reserve_->Admit(std::uint64_t{1} << 60), kFull);
  EXPECT_TRUE(std::filesystem::exists(File()));
  EXPECT_THAT(reserve_->Admit(kMib), IsOk());
}

TEST_F(DiskReserveTest, UnderTheMarginTheFileIsGivenUpAndTakenAgainWhenThereIsRoomForBoth) {
  Open();
  disk_.SetFreeBytes(kMargin - 1);
  EXPECT_THAT(reserve_->Admit(0), kFull);
  EXPECT_FALSE(std::filesystem::exists(File()));
  disk_.SetFreeBytes(kMargin + kReserve - 1);  // the catalog has its space, saves have none
  EXPECT_THAT(reserve_->Admit(0), kFull);
  EXPECT_FALSE(std::filesystem::exists(File()));
  disk_.SetFreeBytes(kMargin + kReserve + kMib);
  EXPECT_THAT(reserve_->Admit(kMib), IsOk());
  EXPECT_EQ(std::filesystem::file_size(File()), kReserve);
}

TEST_F(DiskReserveTest, WhatOthersWerePromisedIsNotPromisedAgain) {
  Open();
  disk_.SetFreeBytes(kMargin + 24 * kMib);
  auto first = std::make_optional(reserve_->AdmitWrite(8 * kMib).value());
  const DiskReserve::Admission second = reserve_->AdmitWrite(8 * kMib).value();
  {
    DiskReserve::Admission third = reserve_->AdmitWrite(8 * kMib).value();
    const DiskReserve::Admission moved = std::move(third);
    EXPECT_THAT(reserve_->AdmitWrite(1).status(), kFull);
    EXPECT_THAT(reserve_->Admit(1), kFull);
    EXPECT_THAT(reserve_->Admit(0), IsOk());
    EXPECT_TRUE(std::filesystem::exists(File()));
  }
  disk_.SetFreeBytes(kMargin + 16 * kMib);  // the third is written
  EXPECT_THAT(reserve_->AdmitWrite(1).status(), kFull);
  first.reset();  // it failed
  EXPECT_THAT(reserve_->AdmitWrite(8 * kMib).status(), IsOk());
  EXPECT_THAT(reserve_->AdmitWrite(8 * kMib + 1).status(), kFull);
}

TEST_F(DiskReserveTest, TheReserveIsNotTakenFromWhatOthersWerePromised) {
  Open();
  const DiskReserve::Admission admission = reserve_->AdmitWrite(8 * kMib).value();
  reserve_->GiveUp();
  disk_.SetFreeBytes(kMargin + kReserve + 8 * kMib - 1);
  EXPECT_THAT(reserve_->Admit(0), kFull);
  EXPECT_FALSE(std::filesystem::exists(File()));
  disk_.SetFreeBytes(kMargin + kReserve + 8 * kMib);
  EXPECT_THAT(reserve_->Admit(0), IsOk());
  EXPECT_TRUE(std::filesystem::exists(File()));
}

TEST_F(DiskReserveTest, WatchingGivesUpUnderTheMarginAndTakesNothing) {
  Open();
  disk_.SetFreeBytes(kMargin);
  reserve_->Watch();
  EXPECT_TRUE(std::filesystem::exists(File()));
  disk_.SetFreeBytes(kMargin - 1);
  reserve_->Watch();
  EXPECT_FALSE(std::filesystem::exists(File()));
  disk_.SetFreeBytes(100 * kMib);
  reserve_->Watch();
  EXPECT_FALSE(std::filesystem::exists(File()));
}

TEST_F(DiskReserveTest, AFullDiskIsOpenedAndRefusesSaves) {
  disk_.SetFreeBytes(kMib);
  Open();
  EXPECT_FALSE(std::filesystem::exists(File()));
  EXPECT_THAT(reserve_->Admit(0), kFull);
}

TEST_F(DiskReserveTest, SpaceThatCannotBeAllocatedIsNotHeld) {
  disk_.Fail("posix_fallocate", ENOSPC);
  Open();
  EXPECT_THAT(reserve_->Admit(0), kFull);
  EXPECT_FALSE(std::filesystem::exists(File()));
  disk_.Fail("posix_fallocate", 0);
  EXPECT_THAT(reserve_->Admit(0), IsOk());
}

TEST_F(DiskReserveTest, AFileOfBeforeCountsAsHeld) {
  Open();
  disk_.SetFreeBytes(kMargin + kMib);
  Open();
  EXPECT_THAT(reserve_->Admit(kMib), IsOk());
  disk_.SetFreeBytes(kMargin - 1);
  Open();
  EXPECT_FALSE(std::filesystem::exists(File()));
}

TEST_F(DiskReserveTest, AFileOfAnotherSizeIsMadeToFit) {
  Open(2 * kReserve);
  disk_.SetFreeBytes(kMargin);
  Open(kReserve);
  EXPECT_THAT(reserve_->Admit(0), IsOk());
  EXPECT_EQ(std::filesystem::file_size(File()), kReserve);
  Open(2 * kReserve);  // there is no room to grow
  EXPECT_THAT(reserve_->Admit(0), kFull);
  disk_.SetFreeBytes(kMargin + kReserve);
  EXPECT_THAT(reserve_->Admit(0), IsOk());
  EXPECT_EQ(std::filesystem::file_size(File()), 2 * kReserve);
}

TEST_F(DiskReserveTest, AFileOfAnotherSizeIsGivenUpToo) {
  Open(2 * kReserve);
  disk_.SetFreeBytes(kMargin - 1);
  Open(kReserve);
  EXPECT_FALSE(std::filesystem::exists(File()));
}

TEST_F(DiskReserveTest, NoReserveIsAskedForNoneIsHeld) {
  Open(0);
  EXPECT_THAT(reserve_->Admit(kMib), IsOk());
  disk_.SetFreeBytes(kMargin - 1);
  EXPECT_THAT(reserve_->Admit(0), kFull);
}

TEST_F(DiskReserveTest, AFolderThatCannotBeUsedSaysSo) {
  const auto unusable = IsError(absl::StatusCode::kInternal, "CANNOT_OPEN_STORE");
  EXPECT_THAT(DiskReserve::Open(folder_.path() / "missing", {}).status(), unusable);
  std::filesystem::create_directory(File());
  EXPECT_THAT(DiskReserve::Open(folder_.path(), {.reserve_bytes = kReserve, .margin_bytes = kMargin}).status(),
              unusable);
}

}  // namespace
}  // namespace ckpt::storage
