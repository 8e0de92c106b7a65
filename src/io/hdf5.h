// HDF5 files of named arrays, written and read whole or in parts. The only files of this program that include hdf5.h
// are this header's own sources.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/tensor_source.h"

namespace qat {

// Writes a new file under a temporary name beside `path`; commit() closes, syncs and renames. Without commit() nothing
// remains. Names may hold groups: "masters/layers.0.mlp.up_proj.weight". Every array carries a checksum (Fletcher-32)
// per chunk. The same calls give the same bytes: no times are stored. Failures throw Error with path, name and reason.
class Hdf5Writer {
 public:
  explicit Hdf5Writer(const std::filesystem::path& path);
  ~Hdf5Writer();
  Hdf5Writer(const Hdf5Writer&) = delete;
  Hdf5Writer& operator=(const Hdf5Writer&) = delete;

  void write(std::string_view name, std::span<const float> values);
  void write(std::string_view name, std::span<const int64_t> values);
  void write(std::string_view name, std::span<const double> values);
  void write(std::string_view name, std::span<const std::byte> values);
  void write_text(std::string_view name, std::string_view text);

  // Makes room for an array of F32 or BF16 (as the 16-bit integers of its bits) that write_part() fills, in any order.
  // Parts that are never written read as zeros. Parts of one array only may be written at a time.
  void declare(std::string_view name, ElementType type, uint64_t elements);
  // Bytes of whole elements of the array declared last, from element `first` on.
  void write_part(uint64_t first, std::span<const std::byte> bytes);

  void commit();

 private:
  struct File;
  std::unique_ptr<File> file_;
};

// Reads such a file. A file that is truncated, damaged (checksums) or holds other things than asked for throws Error
// with path, name, found and wanted.
class Hdf5Reader {
 public:
  explicit Hdf5Reader(const std::filesystem::path& path);
  ~Hdf5Reader();
  Hdf5Reader(const Hdf5Reader&) = delete;
  Hdf5Reader& operator=(const Hdf5Reader&) = delete;

  bool has(std::string_view name) const;
  // Fills `values`; the array in the file must have exactly this type and number of elements.
  void read(std::string_view name, std::span<float> values) const;
  void read(std::string_view name, std::span<int64_t> values) const;
  void read(std::string_view name, std::span<double> values) const;
  void read(std::string_view name, std::span<std::byte> values) const;
  std::string read_text(std::string_view name) const;
  // Elements of an array of any type.
  uint64_t elements(std::string_view name) const;
  // Fills `bytes` with elements of an array of F32 or BF16 from element `first` on; the array must have this type and
  // reach that far.
  void read_part(std::string_view name, ElementType type, uint64_t first, std::span<std::byte> bytes) const;
  // Names inside a group, sorted; empty if there is no such group.
  std::vector<std::string> names_in(std::string_view group) const;

 private:
  struct File;
  std::unique_ptr<File> file_;
};

}  // namespace qat
