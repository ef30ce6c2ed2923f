#include "client/manifest.h"

#include <functional>

#include "absl/strings/match.h"
#include "base/status.h"
#include "gtest/gtest.h"

namespace ckpt::client {
namespace {

constexpr std::uint32_t kChunk = 100;

v1::RestoreResponse Header(std::uint64_t tensors) {
  v1::RestoreResponse response;
  response.mutable_header()->set_chunk_size(kChunk);
  response.mutable_header()->mutable_checkpoint()->set_run("run");
  response.mutable_header()->mutable_checkpoint()->set_tensor_count(tensors);
  return response;
}

// A list of tensors' nodes.
v1::RestoreResponse Nodes(std::uint64_t tensors) {
  v1::RestoreResponse response;
  v1::StateNode& list = *response.mutable_state()->add_nodes();
  list.set_kind(v1::NODE_KIND_LIST);
  list.set_child_count(tensors);
  for (std::uint64_t i = 0; i < tensors; ++i) {
    v1::StateNode& node = *response.mutable_state()->add_nodes();
    node.set_kind(v1::NODE_KIND_TENSOR);
    node.set_tensor(i);
  }
  return response;
}

// One of 250 bytes in three chunks, one inline, and a view of the first.
v1::RestoreResponse Tensors() {
  v1::RestoreResponse response;
  v1::TensorPart& part = *response.mutable_tensors();
  v1::Tensor& large = *part.add_tensors();
  large.set_dtype(v1::DTYPE_UINT8);
  large.add_shape(250);
  v1::Box& box = *large.add_boxes();
  box.add_offset(0);
  box.add_shape(250);
  box.set_digests(std::string(3 * 32, 'd'));
  box.set_fingerprints(std::string(3 * 16, 'f'));
  v1::Tensor& small = *part.add_tensors();
  small.set_dtype(v1::DTYPE_INT32);
  small.set_inline_data("abcd");
  v1::Tensor& view = *part.add_tensors();
  view.set_dtype(v1::DTYPE_UINT8);
  view.add_shape(10);
  view.set_view_of(0);
  view.set_view_offset_bytes(240);
  return response;
}

v1::RestoreResponse Start() {
  v1::RestoreResponse response;
  response.mutable_start();
  return response;
}

absl::Status TakeAll(ManifestReader& reader, const std::vector<v1::RestoreResponse>& messages) {
  for (const v1::RestoreResponse& message : messages) CKPT_RETURN_IF_ERROR(reader.Take(message));
  return absl::OkStatus();
}

TEST(ManifestReader, TakesAWholeDescription) {
  ManifestReader reader;
  ASSERT_TRUE(TakeAll(reader, {Header(3), Nodes(3), Tensors(), Start()}).ok());
  EXPECT_TRUE(reader.complete());
  const Manifest& manifest = reader.manifest();
  EXPECT_EQ(manifest.layout->chunk_count(), 3U);
  EXPECT_EQ(manifest.size_bytes[1], 4U);
  EXPECT_EQ(manifest.fingerprint({0, 2}).view(), std::string(16, 'f'));
}

TEST(ManifestReader, AnErrorShowsNoBytesOfTheServerThatATerminalActsOn) {
  ManifestReader reader;
  v1::RestoreResponse tensors = Tensors();
  tensors.mutable_tensors()->mutable_tensors(1)->set_path("\x1b[2Jé\xff");
  tensors.mutable_tensors()->mutable_tensors(1)->set_inline_data("abc");
  const absl::Status status = TakeAll(reader, {Header(3), Nodes(3), tensors});
  EXPECT_TRUE(absl::StrContains(status.message(), "tensor \\x1b[2Jé\\xff: ")) << status;

  ManifestReader of_boxes;
  tensors = Tensors();
  tensors.mutable_tensors()->mutable_tensors(0)->set_path("\x1b[2J");
  tensors.mutable_tensors()->mutable_tensors(0)->add_boxes();
  EXPECT_FALSE(absl::StrContains(TakeAll(of_boxes, {Header(3), Nodes(3), tensors}).message(), '\x1b'));
}

TEST(ManifestReader, RefusesMessagesOutOfOrder) {
  const std::vector<std::vector<v1::RestoreResponse>> bad = {
      {Nodes(3)},                                          // no header
      {Header(3), Header(3)},                              // two
      {Header(3), Tensors(), Tensors()},                   // a part twice
      {Header(3), Nodes(3), Nodes(3)},                     // goes on after the tree's end
      {Header(3), Tensors(), Start()},                     // no tree
      {Header(3), Nodes(3), Start()},                      // no tensors
      {Header(4), Nodes(3), Tensors(), Start()},           // one tensor less than announced
      {Header(2), Nodes(3)},                               // a node of a tensor beyond them
      {Header(3), Nodes(3), Tensors(), Start(), Start()},  // goes on after its end
  };
  for (std::size_t i = 0; i < bad.size(); ++i) {
    ManifestReader reader;
    EXPECT_EQ(ReasonOf(TakeAll(reader, bad[i])), "MALFORMED_MANIFEST") << i;
  }
}

TEST(ManifestReader, RefusesImpossibleChunkSizes) {
  for (const std::uint32_t size : {0U, (4U << 20) + 1, UINT32_MAX}) {
    v1::RestoreResponse header = Header(0);
    header.mutable_header()->set_chunk_size(size);
    ManifestReader reader;
    EXPECT_EQ(ReasonOf(reader.Take(header)), "MALFORMED_MANIFEST") << size;
  }
}

TEST(ManifestReader, RefusesTensorsThatContradictThemselves) {
  using Change = std::function<void(v1::Tensor & large, v1::Tensor & small, v1::Tensor & view)>;
  const std::vector<Change> changes = {
      [](auto& large, auto&, auto&) { large.set_dtype(v1::DTYPE_UNSPECIFIED); },
      [](auto& large, auto&, auto&) { large.set_shape(0, 301); },
      [](auto& large, auto&, auto&) { large.set_shape(0, 200); },
      [](auto& large, auto&, auto&) { large.set_shape(0, 0); },
      [](auto& large, auto&, auto&) { large.set_shape(0, UINT64_MAX); },
      [](auto& large, auto&, auto&) { large.add_strides(2); },
      [](auto& large, auto&, auto&) { large.set_inline_data("x"); },
      [](auto& large, auto&, auto&) { large.mutable_boxes(0)->mutable_digests()->push_back('x'); },
      [](auto& large, auto&, auto&) { large.mutable_boxes(0)->mutable_fingerprints()->pop_back(); },
      [](auto& large, auto&, auto&) { large.mutable_boxes(0)->set_offset(0, 1); },
      [](auto& large, auto&, auto&) { large.mutable_boxes(0)->set_shape(0, 249); },
      [](auto& large, auto&, auto&) { large.mutable_boxes(0)->add_shape(1); },
      [](auto& large, auto&, auto&) { *large.add_boxes() = large.boxes(0); },
      [](auto&, auto& small, auto&) { small.set_inline_data("abc"); },
      [](auto&, auto& small, auto&) { small.clear_inline_data(); },
      [](auto&, auto&, auto& view) { view.set_inline_data("x"); },
      [](auto&, auto&, auto& view) { view.add_boxes(); },
      [](auto&, auto&, auto& view) { view.set_view_of(3); },
      [](auto&, auto&, auto& view) { view.set_view_of(2); },
      [](auto&, auto&, auto& view) { view.set_view_offset_bytes(241); },
      [](auto&, auto&, auto& view) { view.set_view_offset_bytes(UINT64_MAX); },
      [](auto&, auto&, auto& view) { view.add_strides(2); },
  };
  for (std::size_t i = 0; i < changes.size(); ++i) {
    v1::RestoreResponse tensors = Tensors();
    v1::TensorPart& part = *tensors.mutable_tensors();
    changes[i](*part.mutable_tensors(0), *part.mutable_tensors(1), *part.mutable_tensors(2));
    ManifestReader reader;
    EXPECT_EQ(ReasonOf(TakeAll(reader, {Header(3), Nodes(3), tensors, Start()})), "MALFORMED_MANIFEST") << i;
  }
}

// The large tensor as two boxes, the first of `first` bytes, in this order.
v1::RestoreResponse InTwoBoxes(std::uint64_t first, bool in_order) {
  v1::RestoreResponse tensors = Tensors();
  v1::Tensor& large = *tensors.mutable_tensors()->mutable_tensors(0);
  large.clear_boxes();
  for (const std::uint64_t offset : {in_order ? 0 : first, in_order ? first : 0}) {
    v1::Box& box = *large.add_boxes();
    const std::uint64_t size = offset == 0 ? first : 250 - offset;
    box.add_offset(offset);
    box.add_shape(size);
    box.set_digests(std::string((size + 99) / 100 * 32, 'd'));
    box.set_fingerprints(std::string((size + 99) / 100 * 16, 'f'));
  }
  return tensors;
}

TEST(ManifestReader, TakesTensorsInBoxes) {
  ManifestReader reader;
  ASSERT_TRUE(TakeAll(reader, {Header(3), Nodes(3), InTwoBoxes(30, true), Start()}).ok());
  EXPECT_EQ(reader.manifest().layout->chunk_count(0), 4U);
  ManifestReader disordered;
  EXPECT_EQ(ReasonOf(TakeAll(disordered, {Header(3), Nodes(3), InTwoBoxes(30, false)})), "MALFORMED_MANIFEST");
  v1::RestoreResponse gap = InTwoBoxes(30, true);
  v1::Box& second = *gap.mutable_tensors()->mutable_tensors(0)->mutable_boxes(1);
  second.set_offset(0, 31);
  second.set_shape(0, 219);
  ManifestReader of_gap;
  EXPECT_EQ(ReasonOf(TakeAll(of_gap, {Header(3), Nodes(3), gap})), "MALFORMED_MANIFEST");
}

}  // namespace
}  // namespace ckpt::client
