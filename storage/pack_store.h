// Where payload rests: records in append-only packs. The seam between the store and its medium: a file system here,
// an object store elsewhere. Every implementation passes pack_store_contract_test.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/digest.h"
#include "storage/pack_record.h"

namespace ckpt::storage {

// A pack's name: 16 random bytes, never used twice.
using PackId = ByteString<struct PackIdTag, 16>;

// Where a record was written.
struct RecordLocation {
  PackId pack;
  std::uint64_t offset = 0;         // of its header, in bytes from the start of the pack
  std::uint32_t ordinal = 0;        // its number in the pack, from 0
  std::uint32_t stored_length = 0;  // of its payload
};

// Written together: `end` is how long the pack is after them.
struct WrittenBatch {
  PackId pack;
  std::vector<RecordLocation> locations;  // as many as records, in their order
  std::uint64_t end = 0;
};

// What the store tells whoever keeps the packs' rows. Called from any thread, from within Write, Release, SealIdle and
// the destructor.
class PackRegistry {
 public:
  virtual ~PackRegistry() = default;

  // A pack is about to be made. Nothing of it may exist before this has returned OK, durably. After an error there is
  // no such pack: Write returns the error.
  virtual absl::Status Announce(const PackId& pack, std::string_view domain) = 0;

  // Nothing will be appended to the pack any more. Its length is what was written by the batches that were indexed.
  virtual absl::Status Sealed(const PackId& pack) = 0;

  // The same of a pack of which bytes are lost: nothing new may rely on it. After an error it is called again.
  virtual absl::Status Lost(const PackId& pack) = 0;
};

// Thread-safe.
class PackStore {
 public:
  virtual ~PackStore() = default;

  // Writes the records next to each other into one pack of the domain, durably: after OK they survive power loss and
  // can be read. `prefer`: the pack that the caller wrote into before, or null; taken if it is free and open. No two
  // Writes are in one pack at a time: the pack is the caller's until it calls Release, so that it can index the records
  // before anybody else appends. After an error nothing was written that counts and there is nothing to release.
  // Errors: ResourceExhausted (DISK_FULL; nothing is lost), Internal (the medium failed; the pack is sealed), the
  // registry's.
  virtual absl::StatusOr<WrittenBatch> Write(std::string_view domain, std::span<const Record> records,
                                             const PackId* prefer) = 0;

  // Gives a pack from Write back. `indexed` false says that the records could not be indexed: the pack is then sealed,
  // so that its last bytes do not count.
  virtual void Release(const PackId& pack, bool indexed) = 0;

  // Reads `buffer.size()` bytes of the pack from `offset` on; what is behind the last batch is not specified. Errors:
  // NotFound (no such pack any more), OutOfRange (beyond its size), DataLoss (the medium gave an error): the bytes are
  // gone. Internal (rights, too many open files) says nothing of them.
  virtual absl::Status Read(std::string_view domain, const PackId& pack, std::uint64_t offset,
                            std::span<std::byte> buffer) const = 0;

  // Deletes a pack that nobody writes to. OK if there is none.
  virtual absl::Status Delete(std::string_view domain, const PackId& pack) = 0;

  struct Listed {
    std::string domain;
    PackId pack;
    std::uint64_t size_bytes;  // at least the `end` of every batch that was written
  };
  // Every pack there is. Slow: for start-up and rebuild only.
  virtual absl::StatusOr<std::vector<Listed>> List() const = 0;

  // Seals the open packs that nobody has written to for a while, and those that have lost bytes.
  virtual void SealIdle() = 0;
};

}  // namespace ckpt::storage
