#include "client/citation_plan.h"

#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ckpt::client {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

constexpr SaveChunks::Limits kLimits{100, 50};

// A tensor of `chunks` chunks, each with content of its own.
class CitationPlan : public ::testing::Test {
 protected:
  void AddTensor(int chunks) {
    std::string& bytes = *memory_of_tensors_.emplace_back(std::make_unique<std::string>());
    for (int i = 0; i < chunks; ++i) {
      std::string chunk = absl::StrCat("chunk ", i, " of tensor ", memory_of_tensors_.size());
      chunk.resize(kLimits.chunk_size, 'z');
      bytes += chunk;
    }
    Tensor tensor;
    tensor.meta.set_dtype(v1::DTYPE_UINT8);
    tensor.meta.add_shape(bytes.size());
    tensor.meta.set_path(absl::StrCat("t", tensors_.count()));
    tensor.data = bytes.data();
    ASSERT_TRUE(tensors_.Add(tensor).ok());
  }
  SaveChunks MakeChunks() { return {tensors_, kLimits, {}}; }

  // What a save of the tensors as they are now would have left in the memory and at the server.
  void Stored(bool remember) {
    SaveChunks chunks = MakeChunks();
    std::vector<std::uint64_t> all(chunks.layout().chunk_count());
    std::iota(all.begin(), all.end(), std::uint64_t{0});
    chunks.ComputeDigests(all);
    for (const std::uint64_t chunk : all) server_.insert(chunks.digest(chunk));
    if (remember) memory_.Learn(chunks.Known());
  }
  std::vector<bool> Plan(SaveChunks& chunks, const AckedChunks& acked = {}, bool probe = true) {
    const AskServer ask = [this](std::span<const Digest> digests) {
      std::vector<bool> has;
      for (const Digest& digest : digests) has.push_back(server_.contains(digest));
      asked_ += digests.size();
      return absl::StatusOr<std::vector<bool>>(has);
    };
    const std::function<bool()> nobody;
    Interrupts interrupts(nobody);
    const auto plan = PlanCitations(chunks, memory_, acked, probe, ask, interrupts);
    EXPECT_TRUE(plan.ok());
    return *plan;
  }

  std::vector<std::unique_ptr<std::string>> memory_of_tensors_;
  TensorSet tensors_;
  ChunkMemory memory_;
  std::set<Digest> server_;
  std::size_t asked_ = 0;
};

TEST_F(CitationPlan, CitesWhatIsRememberedUnchangedAndStillThere) {
  AddTensor(3);
  AddTensor(1);
  Stored(true);
  (*memory_of_tensors_[0])[150] ^= 1;
  server_.erase(Sha256(*memory_of_tensors_[1]));
  SaveChunks chunks = MakeChunks();
  EXPECT_THAT(Plan(chunks), ElementsAre(true, false, true, false));
  EXPECT_EQ(asked_, 3U);
  EXPECT_FALSE(chunks.has_digest(1));  // a changed chunk is not hashed here
}

TEST_F(CitationPlan, AsksForNothingThatNobodyKnows) {
  AddTensor(200);
  SaveChunks chunks = MakeChunks();
  EXPECT_THAT(Plan(chunks), Each(false));
  EXPECT_EQ(asked_, 8U);
  asked_ = 0;
  EXPECT_THAT(Plan(chunks, {}, false), Each(false));
  EXPECT_EQ(asked_, 8U);  // those whose digests are known by now
}

TEST_F(CitationPlan, AsksForLittleOfASmallState) {
  AddTensor(40);
  SaveChunks chunks = MakeChunks();
  EXPECT_THAT(Plan(chunks), Each(false));
  EXPECT_EQ(asked_, 2U);
}

TEST_F(CitationPlan, HashesAllWhenTheServerKnowsOneOfAFew) {
  AddTensor(40);
  Stored(false);
  for (const std::size_t changed : {0U, 10U, 17U}) (*memory_of_tensors_[0])[changed * kLimits.chunk_size] ^= 1;
  SaveChunks chunks = MakeChunks();
  const std::vector<bool> plan = Plan(chunks);
  for (std::size_t i = 0; i < plan.size(); ++i) EXPECT_EQ(plan[i], i != 0 && i != 10 && i != 17) << i;
}

// An embedding that was made larger stands first.
TEST_F(CitationPlan, FindsWhatTheServerKnowsBehindAFrontThatChanged) {
  AddTensor(40);
  Stored(false);
  for (std::size_t i = 0; i < 16; ++i) (*memory_of_tensors_[0])[i * kLimits.chunk_size] ^= 1;
  SaveChunks chunks = MakeChunks();
  const std::vector<bool> plan = Plan(chunks);
  for (std::size_t i = 0; i < plan.size(); ++i) EXPECT_EQ(plan[i], i >= 16) << i;
}

TEST_F(CitationPlan, DoesNotTakeFillForASign) {
  AddTensor(10);
  std::fill(memory_of_tensors_[0]->begin(), memory_of_tensors_[0]->end(), '\0');
  Stored(false);
  SaveChunks chunks = MakeChunks();
  EXPECT_THAT(Plan(chunks), Each(false));
  EXPECT_EQ(asked_, 0U);
}

TEST_F(CitationPlan, CitesWhatWasAckedOnlyWithItsOwnFingerprintAtItsPlace) {
  AddTensor(3);
  AckedChunks acked;
  const auto bytes = [&](std::size_t i) { return std::string_view(*memory_of_tensors_[0]).substr(i * 100, 100); };
  acked[{0, 0}] = {Xxh3(bytes(0)), Sha256(bytes(0))};
  acked[{0, 1}] = {Xxh3("before it changed"), Sha256("before it changed")};
  acked[{1, 2}] = {Xxh3(bytes(2)), Sha256(bytes(2))};  // of another tensor
  SaveChunks chunks = MakeChunks();
  EXPECT_THAT(Plan(chunks, acked, false), ElementsAre(true, false, false));
  EXPECT_EQ(asked_, 0U);
  EXPECT_EQ(chunks.digest(0), Sha256(bytes(0)));
}

}  // namespace
}  // namespace ckpt::client
