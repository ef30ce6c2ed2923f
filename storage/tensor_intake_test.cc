#include "storage/tensor_intake.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <limits>
#include <string>

#include "base/status.h"
#include "storage/limits.h"

namespace ckpt::storage {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::uint32_t kChunk = 16384;

v1::Tensor Floats(const std::string& path, std::initializer_list<std::uint64_t> shape,
                  std::initializer_list<std::int64_t> strides = {}) {
  v1::Tensor tensor;
  tensor.set_path(path);
  tensor.set_component("m");
  tensor.set_dtype(v1::DTYPE_FLOAT32);
  for (const std::uint64_t extent : shape) tensor.add_shape(extent);
  for (const std::int64_t stride : strides) tensor.add_strides(stride);
  return tensor;
}

v1::Tensor BytesOf(const std::string& path, std::uint64_t size) {
  v1::Tensor tensor = Floats(path, {size});
  tensor.set_dtype(v1::DTYPE_UINT8);
  if (size < kInlineLimit) tensor.set_inline_data(std::string(size, 'x'));
  return tensor;
}

v1::Tensor View(const std::string& path, std::uint64_t of, std::uint64_t offset,
                std::initializer_list<std::uint64_t> shape, std::initializer_list<std::int64_t> strides = {}) {
  v1::Tensor tensor = Floats(path, shape, strides);
  tensor.set_view_of(of);
  tensor.set_view_offset_bytes(offset);
  return tensor;
}

class Intake : public testing::Test {
 protected:
  absl::Status Chunk(std::uint64_t size) {
    const std::string text = std::to_string(chunks_++);
    CKPT_RETURN_IF_ERROR(intake_.AddChunk(Xxh3(text), size));
    intake_.AddDigest(Sha256(text));
    return absl::OkStatus();
  }

  // Why a new intake, given tensor number 0 of 4000 bytes, refuses this one. "" if it takes it.
  static std::string WhyNot(const v1::Tensor& tensor) {
    TensorIntake intake(kChunk, TensorIntake::Take::kWhole);
    EXPECT_TRUE(intake.Begin(BytesOf("m.first", 4000)).ok());
    const absl::Status status = intake.Begin(tensor);
    EXPECT_TRUE(status.ok() || absl::IsInvalidArgument(status)) << status;
    return ReasonOf(status);
  }

  TensorIntake intake_{kChunk, TensorIntake::Take::kWhole};
  int chunks_ = 0;
};

TEST_F(Intake, ASmallTensorIsInline) {
  for (const std::uint64_t size : {0U, 1U, 4095U}) {
    ASSERT_TRUE(intake_.Begin(BytesOf(std::to_string(size), size)).ok());
    EXPECT_TRUE(intake_.Complete());
    EXPECT_EQ(intake_.size_bytes(), size);
    EXPECT_EQ(intake_.tensor().boxes_size(), 0);
  }
  EXPECT_EQ(intake_.count(), 3U);
}

TEST_F(Intake, ALargerOneIsCutIntoChunks) {
  const struct {
    std::uint64_t size;
    std::vector<std::uint64_t> chunks;
  } cases[] = {{4096, {4096}},
               {kChunk - 1, {kChunk - 1}},
               {kChunk, {kChunk}},
               {kChunk + 1, {kChunk, 1}},
               {3 * kChunk, {kChunk, kChunk, kChunk}}};
  for (const auto& c : cases) {
    ASSERT_TRUE(intake_.Begin(BytesOf(std::to_string(c.size), c.size)).ok());
    std::string digests;
    for (std::size_t i = 0; i < c.chunks.size(); ++i) {
      EXPECT_FALSE(intake_.Complete());
      EXPECT_EQ(intake_.next_chunk(), i);
      EXPECT_EQ(intake_.next_chunk_size(), c.chunks[i]);
      digests += Sha256(std::to_string(chunks_)).view();
      ASSERT_TRUE(Chunk(c.chunks[i]).ok());
    }
    EXPECT_TRUE(intake_.Complete());
    ASSERT_EQ(intake_.tensor().boxes_size(), 1);
    EXPECT_EQ(intake_.tensor().boxes(0).digests(), digests);
    EXPECT_EQ(intake_.tensor().boxes(0).fingerprints().size(), c.chunks.size() * Fingerprint::kSize);
  }
}

TEST_F(Intake, TheInlineBytesAreJustThoseOfTheShape) {
  v1::Tensor missing = BytesOf("m.a", 4095);
  missing.clear_inline_data();
  EXPECT_EQ(WhyNot(missing), "WRONG_SIZE");
  v1::Tensor more = BytesOf("m.a", 10);
  more.set_inline_data(std::string(11, 'x'));
  EXPECT_EQ(WhyNot(more), "WRONG_SIZE");
  v1::Tensor large = BytesOf("m.a", 4096);
  large.set_inline_data(std::string(4096, 'x'));
  EXPECT_EQ(WhyNot(large), "WRONG_SIZE") << "from 4096 bytes on they are chunks";
}

TEST_F(Intake, AChunkHasTheSizeThatIsDue) {
  EXPECT_EQ(ReasonOf(Chunk(1)), "WRONG_SIZE") << "before any tensor";
  ASSERT_TRUE(intake_.Begin(BytesOf("m.a", kChunk + 100)).ok());
  EXPECT_EQ(ReasonOf(Chunk(kChunk - 1)), "WRONG_SIZE");
  EXPECT_EQ(ReasonOf(Chunk(kChunk + 1)), "WRONG_SIZE");
  ASSERT_TRUE(Chunk(kChunk).ok());
  EXPECT_EQ(ReasonOf(Chunk(0)), "WRONG_SIZE");
  EXPECT_EQ(ReasonOf(Chunk(kChunk)), "WRONG_SIZE") << "the last one is shorter";
  ASSERT_TRUE(Chunk(100).ok());
  EXPECT_EQ(ReasonOf(Chunk(1)), "WRONG_SIZE") << "one too many";
}

TEST_F(Intake, ATensorComesAfterAllChunksOfTheLast) {
  ASSERT_TRUE(intake_.Begin(BytesOf("m.a", 2 * kChunk)).ok());
  ASSERT_TRUE(Chunk(kChunk).ok());
  const absl::Status status = intake_.Begin(BytesOf("m.b", 1));
  EXPECT_EQ(ReasonOf(status), "OUT_OF_ORDER");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("m.a has 1 of its 2"));
}

TEST_F(Intake, RefusesShapesThatOverflow) {
  EXPECT_EQ(WhyNot(Floats("m.a", {1ULL << 32, 1ULL << 32})), "SHAPE_TOO_LARGE");
  EXPECT_EQ(WhyNot(Floats("m.a", {1ULL << 61})), "SHAPE_TOO_LARGE");
  EXPECT_EQ(WhyNot(Floats("m.a", {UINT64_MAX, UINT64_MAX})), "SHAPE_TOO_LARGE");
  EXPECT_EQ(WhyNot(Floats("m.a", {(1ULL << 61) - 1})), "TENSOR_TOO_LARGE");
  EXPECT_EQ(WhyNot(Floats("m.a", {UINT64_MAX, 0})), "");
}

TEST_F(Intake, LimitsTheChunksOfATensor) {
  EXPECT_EQ(WhyNot(BytesOf("m.a", kMaxChunksPerTensor * kChunk)), "");
  EXPECT_EQ(WhyNot(BytesOf("m.a", kMaxChunksPerTensor * kChunk + 1)), "TENSOR_TOO_LARGE");
}

TEST_F(Intake, RefusesDescriptionsThatMakeNoSense) {
  v1::Tensor untyped = BytesOf("m.a", 1);
  untyped.clear_dtype();
  EXPECT_EQ(WhyNot(untyped), "UNKNOWN_DTYPE");
  v1::Tensor role = BytesOf("m.a", 1);
  role.set_role(static_cast<v1::Role>(99));
  EXPECT_EQ(WhyNot(role), "BAD_TENSOR");
  v1::Tensor offset = BytesOf("m.a", 1);
  offset.set_view_offset_bytes(1);
  EXPECT_EQ(WhyNot(offset), "BAD_TENSOR");
  v1::Tensor dimensions = BytesOf("m.a", 1);
  for (int i = 1; i < 64; ++i) dimensions.add_shape(1);
  EXPECT_EQ(WhyNot(dimensions), "");
  dimensions.add_shape(1);
  EXPECT_EQ(WhyNot(dimensions), "BAD_TENSOR");
}

TEST_F(Intake, RefusesNamesThatCannotBeShown) {
  EXPECT_EQ(WhyNot(BytesOf(std::string(4096, 'p'), 1)), "");
  EXPECT_EQ(WhyNot(BytesOf(std::string(4097, 'p'), 1)), "BAD_NAME");
  EXPECT_EQ(WhyNot(BytesOf("m.\n", 1)), "BAD_NAME");
  EXPECT_EQ(WhyNot(BytesOf("m.\xff", 1)), "BAD_NAME");
  v1::Tensor component = BytesOf("m.a", 1);
  component.set_component("m\x7f");
  EXPECT_EQ(WhyNot(component), "BAD_NAME");
  v1::Tensor device = BytesOf("m.a", 1);
  device.set_device(std::string(65, 'd'));
  EXPECT_EQ(WhyNot(device), "BAD_NAME");
}

TEST_F(Intake, DigestsMayFollowAcrossBoxes) {
  TensorIntake intake(kChunk, TensorIntake::Take::kBoxes);
  v1::Tensor tensor = BytesOf("m.a", 4 * kChunk);
  for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{3 * kChunk}}) {
    v1::Box& box = *tensor.add_boxes();
    box.add_offset(offset);
    box.add_shape(kChunk);
  }
  ASSERT_TRUE(intake.Begin(tensor).ok());
  for (const char* const text : {"a", "b"}) ASSERT_TRUE(intake.AddChunk(Xxh3(text), kChunk).ok());
  EXPECT_TRUE(intake.Complete());
  for (const char* const text : {"a", "b"}) intake.AddDigest(Sha256(text));
  EXPECT_EQ(intake.tensor().boxes(0).digests(), Sha256("a").view());
  EXPECT_EQ(intake.tensor().boxes(1).digests(), Sha256("b").view());
}

TEST_F(Intake, TheBoxIsTheTensorInMemoryOrder) {
  ASSERT_TRUE(intake_.Begin(Floats("m.a", {8, 3, 16, 16}, {768, 1, 48, 3})).ok());
  ASSERT_EQ(intake_.tensor().boxes_size(), 1);
  EXPECT_THAT(intake_.tensor().boxes(0).shape(), ElementsAre(8, 16, 16, 3));
  EXPECT_THAT(intake_.tensor().boxes(0).offset(), ElementsAre(0, 0, 0, 0));
}

TEST_F(Intake, TakesTheWholeAsABoxAndNoShard) {
  v1::Tensor whole = Floats("m.a", {2048});
  whole.add_boxes()->add_offset(0);
  whole.mutable_boxes(0)->add_shape(2048);
  EXPECT_EQ(WhyNot(whole), "");
  v1::Tensor half = whole;
  half.mutable_boxes(0)->set_shape(0, 1024);
  EXPECT_EQ(WhyNot(half), "SHARDED_TENSOR");
  v1::Tensor two = whole;
  *two.add_boxes() = two.boxes(0);
  EXPECT_EQ(WhyNot(two), "SHARDED_TENSOR");
  v1::Tensor given = whole;
  given.mutable_boxes(0)->set_digests("made up");
  EXPECT_EQ(WhyNot(given), "SHARDED_TENSOR");
}

TEST_F(Intake, RefusesStridesThatAreNotDense) {
  EXPECT_EQ(WhyNot(Floats("m.a", {32, 64}, {65, 1})), "BAD_TENSOR");
  EXPECT_EQ(WhyNot(Floats("m.a", {32, 64}, {0, 1})), "BAD_TENSOR");
  EXPECT_EQ(WhyNot(Floats("m.a", {32, 64}, {-64, 1})), "BAD_TENSOR");
  EXPECT_EQ(WhyNot(Floats("m.a", {32, 64}, {64})), "BAD_TENSOR");
  EXPECT_EQ(WhyNot(Floats("m.a", {32, 64}, {1, 32})), "");
}

TEST_F(Intake, AViewAddsNothingAndNeedsNoChunks) {
  ASSERT_TRUE(intake_.Begin(BytesOf("m.a", 4000)).ok());
  ASSERT_TRUE(intake_.Begin(View("m.b", 0, 0, {1000})).ok());
  EXPECT_TRUE(intake_.Complete());
  EXPECT_EQ(intake_.size_bytes(), 0U);
  EXPECT_EQ(intake_.number(), 1U);
}

TEST_F(Intake, AViewStaysWithinTheBytesThatItShows) {
  EXPECT_EQ(WhyNot(View("m.v", 0, 0, {1000})), "");
  EXPECT_EQ(WhyNot(View("m.v", 0, 0, {1001})), "BAD_TENSOR");
  EXPECT_EQ(WhyNot(View("m.v", 0, 3996, {1})), "");
  EXPECT_EQ(WhyNot(View("m.v", 0, 3997, {1})), "BAD_TENSOR");
  EXPECT_EQ(WhyNot(View("m.v", 0, 4000, {0})), "");
  EXPECT_EQ(WhyNot(View("m.v", 0, 4001, {0})), "BAD_TENSOR");
  EXPECT_EQ(WhyNot(View("m.v", 0, UINT64_MAX, {1})), "BAD_TENSOR");
  EXPECT_EQ(WhyNot(View("m.v", 0, 0, {10, 10}, {99, 10})), "") << "ends at element 981";
  EXPECT_EQ(WhyNot(View("m.v", 0, 0, {10, 10}, {101, 11})), "BAD_TENSOR") << "ends at element 1009";
}

TEST_F(Intake, AViewsStridesFitItsShape) {
  constexpr std::int64_t kFar = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(WhyNot(View("m.v", 0, 0, {2, 2}, {-1, 1})), "BAD_TENSOR");
  EXPECT_EQ(WhyNot(View("m.v", 0, 0, {3, 2}, {kFar, kFar})), "BAD_TENSOR");
  EXPECT_EQ(WhyNot(View("m.v", 0, 0, {2}, {kFar})), "BAD_TENSOR");
}

TEST_F(Intake, AViewHasAStrideForEachDimension) {
  EXPECT_EQ(WhyNot(View("m.v", 0, 0, {2, 2, 2, 2, 2, 2, 2, 2}, {1})), "BAD_TENSOR");
  EXPECT_EQ(WhyNot(View("m.v", 0, 0, {2}, {1, 1})), "BAD_TENSOR");
  EXPECT_EQ(WhyNot(View("m.v", 0, 0, {}, {1})), "BAD_TENSOR");
}

TEST_F(Intake, AViewShowsAnEarlierTensorThatIsNone) {
  EXPECT_EQ(WhyNot(View("m.v", 1, 0, {1})), "BAD_TENSOR") << "of itself";
  EXPECT_EQ(WhyNot(View("m.v", UINT64_MAX, 0, {1})), "BAD_TENSOR");
  v1::Tensor bytes = View("m.v", 0, 0, {1});
  bytes.set_inline_data("abcd");
  EXPECT_EQ(WhyNot(bytes), "BAD_TENSOR");
  ASSERT_TRUE(intake_.Begin(BytesOf("m.a", 4000)).ok());
  ASSERT_TRUE(intake_.Begin(View("m.b", 0, 0, {10})).ok());
  EXPECT_EQ(ReasonOf(intake_.Begin(View("m.c", 1, 0, {10}))), "BAD_TENSOR") << "of a view";
  EXPECT_EQ(ReasonOf(intake_.Begin(View("m.d", 1, 0, {0}))), "BAD_TENSOR") << "not even of nothing in it";
}

TEST_F(Intake, ATensorStandsInTheTreeUnderItsName) {
  ASSERT_TRUE(intake_.Begin(BytesOf("m.a", 1)).ok());
  EXPECT_EQ(ReasonOf(intake_.Place(1, "m.a", "m")), "BAD_STATE") << "there is none";
  EXPECT_EQ(ReasonOf(intake_.Place(0, "m.b", "m")), "BAD_STATE");
  EXPECT_EQ(ReasonOf(intake_.Place(0, "m.a", "n")), "BAD_STATE");
  ASSERT_TRUE(intake_.Place(0, "m.a", "m").ok());
  EXPECT_TRUE(intake_.Place(0, "n.tied", "n").ok()) << "its first place gave the path";
}

TEST_F(Intake, EveryTensorIsInTheTreeOrSeenThroughAView) {
  EXPECT_TRUE(intake_.CheckAllPlaced().ok());
  ASSERT_TRUE(intake_.Begin(BytesOf("storage:0", 4000)).ok());
  EXPECT_EQ(ReasonOf(intake_.CheckAllPlaced()), "BAD_STATE");
  ASSERT_TRUE(intake_.Begin(View("m.v", 0, 0, {10})).ok());
  EXPECT_THAT(std::string(intake_.CheckAllPlaced().message()), HasSubstr("number 1 "));
  ASSERT_TRUE(intake_.Place(1, "m.v", "m").ok());
  EXPECT_TRUE(intake_.CheckAllPlaced().ok());
}

}  // namespace
}  // namespace ckpt::storage
