// Safetensors: u64 little-endian header size, JSON header, raw little-endian data. Reader and writer.
// Format: huggingface/safetensors README; the checks are those of its validate(): no overlap, no holes, sizes that match.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/mapped_file.h"
#include "core/output_file.h"
#include "io/tensor_source.h"

namespace qat {

// One file, or the shards of a folder (model.safetensors, or model.safetensors.index.json and the files it names).
class SafetensorsSource final : public TensorSource {
 public:
  // `path` is a .safetensors file or a folder. Throws Error naming the file and the fault.
  explicit SafetensorsSource(const std::filesystem::path& path);

  const std::vector<TensorView>& tensors() const override { return tensors_; }
  const TensorView* find(std::string_view name) const override;
  std::string where() const override { return path_.string(); }
  void release(std::span<const std::byte> bytes) const override;
  // Free text entries of the header(s) ("__metadata__").
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  void add_file(const std::filesystem::path& path);

  std::filesystem::path path_;
  std::vector<MappedFile> files_;
  std::vector<TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

// Writes one file, tensor after tensor. Declare all tensors, then write their bytes in the declared order.
class SafetensorsWriter {
 public:
  explicit SafetensorsWriter(const std::filesystem::path& path) : file_(path) {}

  void declare(std::string name, ElementType type, std::vector<int64_t> shape);
  void set_metadata(std::map<std::string, std::string> metadata) { metadata_ = std::move(metadata); }
  // Appends bytes of the current tensor; a tensor may come in several pieces.
  void write(std::span<const std::byte> bytes);
  // Checks that every declared byte was written, syncs and renames.
  void commit();

 private:
  struct Declared {
    std::string name;
    ElementType type;
    std::vector<int64_t> shape;
    uint64_t bytes;
  };
  void write_header();

  OutputFile file_;
  std::vector<Declared> declared_;
  std::map<std::string, std::string> metadata_;
  bool header_written_ = false;
  uint64_t declared_bytes_ = 0;
  uint64_t written_bytes_ = 0;
};

}  // namespace qat
