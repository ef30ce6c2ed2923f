#include "client/wire_message.h"

#include <cstdlib>
#include <iostream>
#include <random>
#include <thread>

#include "gtest/gtest.h"

namespace ckpt::client {
namespace {

std::mt19937_64 Random() {
  const char* given = std::getenv("CKPT_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::cout << "CKPT_SEED=" << seed << std::endl;
  return std::mt19937_64(seed);
}

std::string Varint(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
  return out;
}

std::string Field(int number, int type, const std::string& content) {
  return Varint(static_cast<std::uint64_t>(number) << 3 | static_cast<std::uint64_t>(type)) + content;
}

std::string Delimited(int number, const std::string& content) {
  return Field(number, 2, Varint(content.size()) + content);
}

// The text cut into pieces at random, some of them empty.
std::vector<Bytes> Cut(std::string_view text, std::mt19937_64& random) {
  std::vector<Bytes> pieces;
  while (!text.empty()) {
    const std::size_t size = std::min<std::size_t>(text.size(), random() % 6);
    pieces.push_back(AsBytes(text.substr(0, size)));
    text.remove_prefix(size);
  }
  return pieces;
}

std::string Join(const std::vector<Bytes>& pieces) {
  std::string out;
  for (const Bytes piece : pieces) out.append(AsChars(piece));
  return out;
}

grpc::ByteBuffer BufferOf(const std::string& text) {
  const grpc::Slice slice(text);
  return {&slice, 1};
}

TEST(FindChunkDownload, ReadsWhatProtobufWrites) {
  auto random = Random();
  for (int round = 0; round < 1000; ++round) {
    v1::RestoreResponse response;
    v1::ChunkDownload& chunk = *response.mutable_chunk();
    chunk.set_tensor(random() >> random() % 64);
    chunk.set_index(random() >> random() % 64);
    chunk.set_payload(std::string(random() % 40, 'x'));
    const std::string encoded = response.SerializeAsString();
    const auto pieces = Cut(encoded, random);
    const auto found = FindChunkDownload(pieces);
    ASSERT_TRUE(found.ok() && found->has_value());
    EXPECT_EQ((*found)->tensor, chunk.tensor());
    EXPECT_EQ((*found)->index, chunk.index());
    EXPECT_EQ(Join((*found)->payload), chunk.payload());
  }
}

TEST(FindChunkDownload, TakesAnyOrderAndSkipsUnknownFields) {
  auto random = Random();
  const std::string unknown = Field(100, 0, Varint(1)) + Field(101, 1, std::string(8, 'a')) + Delimited(102, "text") +
                              Field(103, 5, std::string(4, 'b'));
  const std::string chunk =
      unknown + Delimited(3, "payload") + unknown + Field(2, 0, Varint(7)) + Field(1, 0, Varint(300));
  const std::string encoded = unknown + Delimited(5, chunk) + unknown;
  const auto found = FindChunkDownload(Cut(encoded, random));
  ASSERT_TRUE(found.ok() && found->has_value());
  EXPECT_EQ((*found)->tensor, 300U);
  EXPECT_EQ((*found)->index, 7U);
  EXPECT_EQ(Join((*found)->payload), "payload");
}

TEST(FindChunkDownload, LeavesOtherMessagesAlone) {
  v1::RestoreResponse response;
  response.mutable_start()->set_payload_bytes(5);
  const std::string encoded = response.SerializeAsString();
  const Bytes piece = AsBytes(encoded);
  const auto found = FindChunkDownload(std::span(&piece, 1));
  ASSERT_TRUE(found.ok());
  EXPECT_FALSE(found->has_value());
  const auto message = RestoreMessage::Parse(BufferOf(encoded));
  ASSERT_TRUE(message.ok());
  EXPECT_EQ(message->chunk(), nullptr);
}

TEST(FindChunkDownload, RefusesHostileLengths) {
  const std::string bad[] = {
      Field(5, 2, Varint(100)) + "short",                  // longer than the message
      Field(5, 2, Varint(UINT64_MAX)),                     // overflows
      Delimited(5, Field(3, 2, Varint(100)) + "short"),    // payload longer than the chunk
      Delimited(5, Field(3, 2, Varint(3))) + "abc",        // payload that reaches out of the chunk
      Delimited(5, Field(1, 0, std::string(11, '\xff'))),  // a varint without end
      Delimited(5, Field(0, 0, "\x01")),                   // field number 0
      Delimited(5, Field(9, 3, "")),                       // a group
      Delimited(5, "") + Delimited(5, ""),                 // twice
      Delimited(5, "") + Delimited(4, ""),                 // two of a oneof
      std::string(6, '\xff'),                              // a tag beyond 32 bits
  };
  for (const std::string& text : bad) {
    const Bytes piece = AsBytes(text);
    EXPECT_FALSE(FindChunkDownload(std::span(&piece, 1)).ok()) << ToHex(text);
  }
}

TEST(FindChunkDownload, AgreesWithProtobufOnDamagedMessages) {
  auto random = Random();
  v1::RestoreResponse response;
  response.mutable_chunk()->set_tensor(1234567);
  response.mutable_chunk()->set_index(89);
  response.mutable_chunk()->set_payload("some payload");
  const std::string whole = response.SerializeAsString();
  for (int round = 0; round < 100000; ++round) {
    std::string damaged = whole.substr(0, random() % 4 == 0 ? random() % whole.size() : whole.size());
    for (std::uint64_t flips = random() % 3; flips != 0 && !damaged.empty(); --flips)
      damaged[random() % damaged.size()] ^= static_cast<char>(1 << random() % 8);
    const auto found = FindChunkDownload(Cut(damaged, random));
    v1::RestoreResponse parsed;
    const bool readable = parsed.ParseFromString(damaged);
    if (!found.ok()) continue;
    // What is taken is what protobuf would have made of it; other messages are protobuf's to refuse.
    if (!found->has_value()) {
      ASSERT_FALSE(readable && parsed.has_chunk()) << ToHex(damaged);
      continue;
    }
    ASSERT_TRUE(readable && parsed.has_chunk()) << ToHex(damaged);
    EXPECT_EQ((*found)->tensor, parsed.chunk().tensor());
    EXPECT_EQ((*found)->index, parsed.chunk().index());
    EXPECT_EQ(Join((*found)->payload), parsed.chunk().payload());
  }
}

TEST(EncodeChunkUpload, IsWhatProtobufReads) {
  LentMemory lent;
  for (const std::size_t size : {1U, 127U, 128U, 4096U, 1U << 20}) {
    const std::string payload(size, 'p');
    const Fingerprint fingerprint = Xxh3(payload);
    v1::SaveRequest request;
    ASSERT_TRUE(DecodeMessage(EncodeChunkUpload(fingerprint, lent.Lend(AsBytes(payload))), request).ok());
    EXPECT_EQ(request.chunk().payload(), payload);
    EXPECT_EQ(request.chunk().fingerprint(), fingerprint.view());
  }
}

TEST(LentMemory, IsWaitedForUntilTheLastSliceIsGone) {
  const std::string text = "memory of the caller";
  LentMemory lent;
  auto slice = std::make_unique<grpc::Slice>(lent.Lend(AsBytes(text)));
  EXPECT_EQ(static_cast<const void*>(slice->begin()), text.data());
  std::atomic<bool> given_back = false;
  std::jthread other([&] {
    const grpc::Slice copy = *slice;
    slice.reset();
    given_back = true;
  });
  lent.WaitForAll();
  EXPECT_TRUE(given_back);
}

TEST(DecodeMessage, RefusesWhatIsNone) {
  v1::SaveResponse response;
  EXPECT_FALSE(DecodeMessage(BufferOf("\x0a\x7f"), response).ok());
}

}  // namespace
}  // namespace ckpt::client
