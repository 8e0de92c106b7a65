// GGUF version 3: header, typed metadata, tensor descriptions, padding, tensor data; little-endian. Reader and writer.
// Format and limits: ggml/include/gguf.h and gguf.cpp of llama.cpp (gguf_q4_0.md section 1).
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/mapped_file.h"
#include "core/output_file.h"
#include "io/gguf_value.h"
#include "quant/scheme.h"

namespace qat {

// A tensor of a mapped file. `shape` is row-major, slowest dimension first (the file stores it reversed); `bytes` are
// its blocks, row after row, and stay valid as long as the file object.
struct GgufTensor {
  std::string name;
  std::vector<int64_t> shape;
  Scheme scheme;
  std::span<const std::byte> bytes;

  int64_t columns() const { return shape.back(); }
  int64_t elements() const;
};

// A mapped GGUF file. The constructor checks everything that can be checked without looking at weights and throws Error
// naming the file and the fault; afterwards all facts can be trusted.
class GgufFile {
 public:
  explicit GgufFile(const std::filesystem::path& path);

  const GgufMetadata& metadata() const { return metadata_; }
  // In file order.
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  // The tensor of this name, or null.
  const GgufTensor* find(std::string_view name) const;
  std::string where() const { return file_.path().string(); }
  // Says that these bytes will not be needed again soon.
  void release(std::span<const std::byte> bytes) const { file_.release(bytes); }

 private:
  MappedFile file_;
  GgufMetadata metadata_;
  std::vector<GgufTensor> tensors_;
};

// Writes one file: metadata and tensor declarations first, then begin_data(), then the tensors' bytes in pieces of any
// size and order, then commit(). Nothing stands under the final name before commit().
class GgufWriter {
 public:
  explicit GgufWriter(const std::filesystem::path& path);

  // Throws Error for a key that is empty or repeated. `general.alignment` is never written: llama-quantize destroys
  // files that have it.
  void add(std::string key, GgufValue value);
  // Shape row-major, slowest first. Throws Error if the name is repeated or too long, or rows are no whole blocks.
  void declare(std::string name, std::vector<int64_t> shape, Scheme scheme);

  // Writes everything before the data.
  void begin_data();
  // Bytes of tensor number `tensor` (in the order of declaration) from `offset` on. May be called by several threads.
  void write(size_t tensor, uint64_t offset, std::span<const std::byte> bytes);
  // Bytes that a declared tensor has in all.
  uint64_t tensor_bytes(size_t tensor) const { return declared_[tensor].bytes; }
  // Size of the finished file; known after begin_data().
  uint64_t file_bytes() const { return data_start_ + data_bytes_; }

  // Checks that as many bytes were written as were declared, pads, syncs and renames.
  void commit();

 private:
  struct Declared {
    std::string name;
    std::vector<int64_t> shape;
    Scheme scheme;
    uint64_t bytes;
    uint64_t offset;  // from the start of the data
  };

  OutputFile file_;
  GgufMetadata metadata_;
  std::vector<Declared> declared_;
  uint64_t data_start_ = 0;
  uint64_t data_bytes_ = 0;  // padding included
  std::atomic<uint64_t> written_bytes_{0};
};

}  // namespace qat
