#include "server/chunk_message.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/wire_reader.h"

namespace ckpt::server {
namespace {

std::mt19937_64 Random() {
  const char* given = std::getenv("CKPT_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::cout << "CKPT_SEED=" << seed << std::endl;
  return std::mt19937_64(seed);
}

std::string Varint(std::uint64_t value) {
  std::string out;
  AppendVarint(out, value);
  return out;
}

std::string Field(std::uint64_t number, std::uint64_t type, const std::string& content) {
  return Varint(number << 3 | type) + content;
}

std::string Delimited(std::uint64_t number, const std::string& content) {
  return Field(number, 2, Varint(content.size()) + content);
}

std::string Payload(const std::string& bytes) { return Delimited(v1::ChunkUpload::kPayloadFieldNumber, bytes); }
std::string Print(const std::string& bytes) { return Delimited(v1::ChunkUpload::kFingerprintFieldNumber, bytes); }
std::string Chunk(const std::string& fields) { return Delimited(v1::SaveRequest::kChunkFieldNumber, fields); }

// The text in slices of `size` bytes.
grpc::ByteBuffer BufferOf(const std::string& text, std::size_t size = SIZE_MAX) {
  std::vector<grpc::Slice> slices;
  for (std::size_t at = 0; at < text.size(); at += std::min(size, text.size() - at))
    slices.emplace_back(text.substr(at, size));
  return {slices.data(), slices.size()};
}

std::string PayloadOf(const UploadedChunk& chunk) { return Join(chunk.payload.pieces); }

// A chunk that was found without protobuf.
UploadedChunk Found(const std::string& text) {
  const auto received = ParseSave(BufferOf(text));
  EXPECT_TRUE(received.ok() && received->chunk.has_value()) << ToHex(text);
  return received.ok() && received->chunk.has_value() ? *received->chunk : UploadedChunk();
}

const std::string kUnknown = Field(100, 0, Varint(1)) + Field(101, 1, std::string(8, 'a')) + Delimited(102, "text") +
                             Field(103, 5, std::string(4, 'b'));

TEST(ParseSave, ReadsWhatProtobufWritesHoweverItIsSliced) {
  v1::SaveRequest request;
  request.mutable_chunk()->set_payload("some bytes of a tensor");
  request.mutable_chunk()->set_fingerprint("0123456789abcdef");
  const std::string encoded = request.SerializeAsString();
  for (std::size_t size = 1; size <= encoded.size(); ++size) {
    const auto received = ParseSave(BufferOf(encoded, size));
    ASSERT_TRUE(received.ok() && received->chunk.has_value()) << size;
    EXPECT_EQ(PayloadOf(*received->chunk), "some bytes of a tensor");
    EXPECT_EQ(received->chunk->payload.size(), 22U);
    EXPECT_EQ(received->chunk->fingerprint, "0123456789abcdef");
  }
}

TEST(ParseSave, ThePayloadStaysInItsSlices) {
  const std::string bytes(1 << 20, 'p');
  grpc::ByteBuffer buffer = BufferOf(Chunk(Payload(bytes)), 65536);
  std::vector<grpc::Slice> slices;
  ASSERT_TRUE(buffer.Dump(&slices).ok());
  const auto received = ParseSave(buffer);
  ASSERT_TRUE(received.ok() && received->chunk.has_value());
  EXPECT_EQ(static_cast<const void*>(received->chunk->payload.pieces.at(1).data()), slices[1].begin());
  buffer.Clear();
  slices.clear();
  EXPECT_EQ(PayloadOf(*received->chunk), bytes) << "it keeps them";
}

TEST(ParseSave, ASmallPayloadDoesNotHoldItsMessage) {
  const std::string padding = Delimited(102, std::string(3 << 20, 'p'));
  for (const std::size_t size : {std::size_t{4096}, std::size_t{1} << 20}) {
    const std::string payload(size, 'x');
    const grpc::ByteBuffer buffer = BufferOf(Chunk(padding + Payload(payload)));
    const auto received = ParseSave(buffer);
    ASSERT_TRUE(received.ok() && received->chunk.has_value());
    EXPECT_EQ(PayloadOf(*received->chunk), payload);
    std::vector<grpc::Slice> slices;
    ASSERT_TRUE(buffer.Dump(&slices).ok());
    const auto* begin = reinterpret_cast<const std::byte*>(slices[0].begin());
    const std::byte* at = received->chunk->payload.pieces[0].data();
    EXPECT_FALSE(at >= begin && at < begin + slices[0].size());
  }
}

TEST(ParseSave, TakesFieldsInAnyOrderAndSkipsUnknownOnes) {
  const UploadedChunk chunk = Found(Chunk(kUnknown + Print("print") + kUnknown + Payload("payload") + kUnknown));
  EXPECT_EQ(PayloadOf(chunk), "payload");
  EXPECT_EQ(chunk.fingerprint, "print");
}

TEST(ParseSave, OfFieldsThatComeTwiceTheLastCounts) {
  const UploadedChunk chunk = Found(Chunk(Payload("old") + Print("old") + Payload("new") + Print("new")));
  EXPECT_EQ(PayloadOf(chunk), "new");
  EXPECT_EQ(chunk.fingerprint, "new");
}

TEST(ParseSave, AnEmptyChunkIsAChunk) {
  EXPECT_EQ(Found(Chunk("")).payload.size(), 0U);
  EXPECT_EQ(Found(Chunk(Payload(""))).payload.size(), 0U);
  EXPECT_EQ(Found(Chunk("")).fingerprint, "");
}

TEST(ParseSave, LeavesOtherMessagesToProtobuf) {
  v1::SaveRequest request;
  request.mutable_begin()->set_run("r");
  const auto begin = ParseSave(BufferOf(request.SerializeAsString()));
  ASSERT_TRUE(begin.ok());
  EXPECT_FALSE(begin->chunk.has_value());
  EXPECT_EQ(begin->message.begin().run(), "r");
  const auto nothing = ParseSave(BufferOf(""));
  ASSERT_TRUE(nothing.ok());
  EXPECT_FALSE(nothing->chunk.has_value());
  EXPECT_EQ(nothing->message.message_case(), v1::SaveRequest::MESSAGE_NOT_SET);
}

TEST(ParseSave, MergesAChunkInTwoPartsAsProtobufDoes) {
  for (const std::string& text :
       {Chunk(Payload("payload")) + Chunk(Print("print")), Chunk(Payload("payload") + Print("print")) + kUnknown}) {
    const auto received = ParseSave(BufferOf(text));
    ASSERT_TRUE(received.ok());
    EXPECT_EQ(received->message.chunk().payload(), "payload");
    EXPECT_EQ(received->message.chunk().fingerprint(), "print");
  }
}

TEST(ParseSave, TheLastOfAOneofCounts) {
  const auto received =
      ParseSave(BufferOf(Chunk(Payload("payload")) + Delimited(v1::SaveRequest::kBeginFieldNumber, "")));
  ASSERT_TRUE(received.ok());
  EXPECT_FALSE(received->chunk.has_value());
  EXPECT_TRUE(received->message.has_begin());
}

TEST(ParseSave, RefusesHostileLengths) {
  const std::string bad[] = {
      Field(v1::SaveRequest::kChunkFieldNumber, 2, Varint(100)) + "short",
      Field(v1::SaveRequest::kChunkFieldNumber, 2, Varint(UINT64_MAX)) + "short",
      Chunk(Field(1, 2, Varint(100)) + "short"),
      Chunk(Field(1, 2, Varint(UINT64_MAX)) + "short"),
      Chunk(Field(1, 2, Varint(3))) + "abc",  // reaches out of the chunk
      Chunk(Field(3, 0, std::string(11, '\xff'))),
      Chunk(Field(0, 0, "\x01")),
      std::string(11, '\xff'),
  };
  for (const std::string& text : bad) {
    const absl::Status status = ParseSave(BufferOf(text)).status();
    EXPECT_EQ(ReasonOf(status), "BAD_MESSAGE") << ToHex(text);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << ToHex(text);
  }
}

TEST(ParseSave, RefusesATruncatedMessage) {
  const std::string text = Chunk(Payload("some bytes") + Print("0123456789abcdef"));
  for (std::size_t size = 1; size < text.size(); ++size)
    EXPECT_EQ(ReasonOf(ParseSave(BufferOf(text.substr(0, size), 7)).status()), "BAD_MESSAGE") << size;
}

TEST(ParseSave, AgreesWithProtobufOnDamagedMessages) {
  auto random = Random();
  v1::SaveRequest request;
  request.mutable_chunk()->set_payload("some payload");
  request.mutable_chunk()->set_fingerprint("0123456789abcdef");
  const std::string whole = request.SerializeAsString();
  for (int round = 0; round < 50'000; ++round) {
    std::string damaged = whole;
    for (std::uint64_t flips = 1 + random() % 2; flips != 0; --flips)
      damaged[random() % damaged.size()] ^= static_cast<char>(1 << random() % 8);
    const auto received = ParseSave(BufferOf(damaged, 1 + random() % 9));
    v1::SaveRequest parsed;
    if (!parsed.ParseFromString(damaged)) {
      EXPECT_FALSE(received.ok()) << ToHex(damaged);
      continue;
    }
    ASSERT_TRUE(received.ok()) << ToHex(damaged);
    if (received->chunk.has_value()) {
      EXPECT_EQ(PayloadOf(*received->chunk), parsed.chunk().payload()) << ToHex(damaged);
      EXPECT_EQ(received->chunk->fingerprint, parsed.chunk().fingerprint()) << ToHex(damaged);
    } else {
      EXPECT_EQ(received->message.SerializeAsString(), parsed.SerializeAsString()) << ToHex(damaged);
    }
  }
}

}  // namespace
}  // namespace ckpt::server
