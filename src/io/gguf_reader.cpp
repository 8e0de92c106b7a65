#include <bit>
#include <optional>
#include <set>
#include <unordered_set>

#include "core/checked_math.h"
#include "core/error.h"
#include "io/gguf.h"
#include "io/gguf_format.h"

namespace qat {

namespace {

// Numbers of entries that the rest of the file can hold at all, before anything is allocated for them.
void check_count(const ByteReader& reader, uint64_t count, uint64_t smallest_entry, std::string_view what) {
  if (count > reader.remaining() / smallest_entry) {
    fail(reader.where(), ": says it has ", count, " ", what, " at offset ", reader.offset(), ", but only ",
         reader.remaining(), " bytes follow (truncated, or no GGUF file)");
  }
}

std::string read_text(ByteReader& reader) { return std::string(reader.take_text(reader.read<uint64_t>())); }

bool read_bool(ByteReader& reader) {
  const auto byte = reader.read<uint8_t>();
  if (byte > 1) fail(reader.where(), ": a bool of value ", int{byte}, " before offset ", reader.offset());
  return byte == 1;
}

template <class Element>
Element read_element(ByteReader& reader) {
  if constexpr (std::is_same_v<Element, std::string>) {
    return read_text(reader);
  } else if constexpr (std::is_same_v<Element, bool>) {
    return read_bool(reader);
  } else {
    return reader.read<Element>();
  }
}

// Calls `read` with a null pointer of the element type that belongs to the id.
template <class Read>
auto with_element_type(ByteReader& reader, GgufType type, std::string_view key, const Read& read) {
  switch (type) {
    case GgufType::U8:
      return read(static_cast<uint8_t*>(nullptr));
    case GgufType::I8:
      return read(static_cast<int8_t*>(nullptr));
    case GgufType::U16:
      return read(static_cast<uint16_t*>(nullptr));
    case GgufType::I16:
      return read(static_cast<int16_t*>(nullptr));
    case GgufType::U32:
      return read(static_cast<uint32_t*>(nullptr));
    case GgufType::I32:
      return read(static_cast<int32_t*>(nullptr));
    case GgufType::F32:
      return read(static_cast<float*>(nullptr));
    case GgufType::Bool:
      return read(static_cast<bool*>(nullptr));
    case GgufType::Text:
      return read(static_cast<std::string*>(nullptr));
    case GgufType::U64:
      return read(static_cast<uint64_t*>(nullptr));
    case GgufType::I64:
      return read(static_cast<int64_t*>(nullptr));
    case GgufType::F64:
      return read(static_cast<double*>(nullptr));
    case GgufType::Array:
      fail(reader.where(), ": metadata \"", key, "\" is an array of arrays, which the format does not have");
  }
  fail(reader.where(), ": metadata \"", key, "\" has the unknown type ", static_cast<uint32_t>(type));
}

template <class Element>
std::vector<Element> read_list(ByteReader& reader, std::string_view key) {
  const auto count = reader.read<uint64_t>();
  constexpr uint64_t kSmallest = std::is_same_v<Element, std::string> ? sizeof(uint64_t) : sizeof(Element);
  check_count(reader, count, kSmallest, "entries in \"" + std::string(key) + "\"");
  std::vector<Element> list;
  list.reserve(count);
  for (uint64_t i = 0; i < count; ++i) list.push_back(read_element<Element>(reader));
  return list;
}

GgufValue read_value(ByteReader& reader, std::string_view key) {
  const auto type = static_cast<GgufType>(reader.read<uint32_t>());
  if (type == GgufType::Array) {
    const auto element_type = static_cast<GgufType>(reader.read<uint32_t>());
    return with_element_type(reader, element_type, key, [&]<class Element>(Element*) {
      return GgufValue(GgufArray(read_list<Element>(reader, key)));
    });
  }
  return with_element_type(reader, type, key,
                           [&]<class Element>(Element*) { return GgufValue(read_element<Element>(reader)); });
}

uint64_t read_alignment(const GgufMetadata& metadata, const std::string& where) {
  const GgufValue* value = metadata.find(gguf::kAlignmentKey);
  if (value == nullptr) return gguf::kAlignment;
  const auto* alignment = std::get_if<uint32_t>(value);
  if (alignment == nullptr || !std::has_single_bit(*alignment)) {
    fail(where, ": general.alignment must be a u32 and a power of two");
  }
  return *alignment;
}

struct TensorEntry {
  GgufTensor tensor;
  uint64_t offset;
  uint64_t bytes;
};

TensorEntry read_tensor_entry(ByteReader& reader) {
  const std::string& file = reader.where();
  TensorEntry entry{{read_text(reader), {}, Scheme::F32, {}}, 0, 0};
  const std::string where = file + ": tensor \"" + entry.tensor.name + "\"";
  if (entry.tensor.name.empty() || entry.tensor.name.size() > gguf::kMaxNameBytes) {
    fail(where, ": the name has ", entry.tensor.name.size(), " bytes (allowed: 1 to ", gguf::kMaxNameBytes, ")");
  }
  const auto dimensions = reader.read<uint32_t>();
  if (dimensions == 0 || dimensions > gguf::kMaxDimensions) {
    fail(where, ": has ", dimensions, " dimensions (allowed: 1 to ", gguf::kMaxDimensions, ")");
  }
  std::vector<int64_t>& shape = entry.tensor.shape;
  shape.resize(dimensions);
  for (uint32_t i = 0; i < dimensions; ++i) shape[dimensions - 1 - i] = reader.read<int64_t>();
  const QuantScheme& scheme = scheme_by_gguf_type(reader.read<int32_t>(), where);
  entry.tensor.scheme = scheme.id;
  entry.offset = reader.read<uint64_t>();

  const auto elements = element_count(shape);
  if (!elements || *elements == 0) fail(where, ": a dimension is zero or negative, or the shape overflows");
  if (shape.back() % scheme.block_size != 0) {
    fail(where, ": rows of ", shape.back(), " values are no whole blocks of ", scheme.name, " (", scheme.block_size,
         ")");
  }
  const auto bytes =
      checked_multiply(static_cast<uint64_t>(*elements / scheme.block_size), static_cast<uint64_t>(scheme.block_bytes));
  if (!bytes) fail(where, ": the shape overflows");
  entry.bytes = *bytes;
  return entry;
}

std::vector<TensorEntry> read_tensor_entries(ByteReader& reader, uint64_t count) {
  std::vector<TensorEntry> entries;
  entries.reserve(count);
  std::unordered_set<std::string> names;
  for (uint64_t i = 0; i < count; ++i) {
    entries.push_back(read_tensor_entry(reader));
    const std::string& name = entries.back().tensor.name;
    if (!names.insert(name).second) fail(reader.where(), ": tensor \"", name, "\" comes twice");
  }
  return entries;
}

uint64_t padded(uint64_t size, uint64_t alignment, const std::string& where) {
  const auto sum = checked_add(size, alignment - 1);
  if (!sum) fail(where, ": the sizes of the tensors overflow");
  return *sum / alignment * alignment;
}

// Gives every tensor its bytes. Offsets must be the running sum of padded sizes, as llama.cpp demands: then nothing
// overlaps and nothing hides in holes.
std::vector<GgufTensor> place_tensors(std::vector<TensorEntry> entries, std::span<const std::byte> data,
                                      uint64_t alignment, const std::string& where) {
  std::vector<GgufTensor> tensors;
  tensors.reserve(entries.size());
  uint64_t expected = 0;
  for (TensorEntry& entry : entries) {
    const std::string tensor = where + ": tensor \"" + entry.tensor.name + "\"";
    if (entry.offset != expected) {
      fail(tensor, ": starts at offset ", entry.offset, " of the data, wanted is ", expected,
           " (tensors follow each other without holes)");
    }
    if (entry.offset > data.size() || entry.bytes > data.size() - entry.offset) {
      fail(tensor, ": ", entry.bytes, " bytes at offset ", entry.offset, " lie outside the file's ", data.size(),
           " bytes of data (truncated?)");
    }
    entry.tensor.bytes = data.subspan(entry.offset, entry.bytes);
    tensors.push_back(std::move(entry.tensor));
    expected = entry.offset + padded(entry.bytes, alignment, tensor);
  }
  return tensors;
}

}  // namespace

int64_t GgufTensor::elements() const { return *element_count(shape); }

GgufFile::GgufFile(const std::filesystem::path& path) : file_(path), metadata_(path.string()) {
  const std::string where = path.string();
  ByteReader reader(file_.bytes(), where);
  if (reader.remaining() < gguf::kMagic.size() || reader.take_text(gguf::kMagic.size()) != gguf::kMagic) {
    fail(where, ": is no GGUF file (it does not begin with \"GGUF\")");
  }
  const auto version = reader.read<uint32_t>();
  if (version != gguf::kVersion)
    fail(where, ": GGUF version ", version, " is not supported (wanted: ", gguf::kVersion, ")");
  const auto tensor_count = reader.read<uint64_t>();
  const auto key_count = reader.read<uint64_t>();
  // The smallest entries: a key of one byte with a one-byte value; a name of one byte with one dimension.
  check_count(reader, key_count, 8 + 1 + 4 + 1, "metadata entries");
  check_count(reader, tensor_count, 8 + 1 + 4 + 8 + 4 + 8, "tensors");
  for (uint64_t i = 0; i < key_count; ++i) {
    std::string key = read_text(reader);
    GgufValue value = read_value(reader, key);
    metadata_.add(std::move(key), std::move(value));
  }
  std::vector<TensorEntry> entries = read_tensor_entries(reader, tensor_count);
  const uint64_t alignment = read_alignment(metadata_, where);
  const uint64_t data_start = padded(reader.offset(), alignment, where);
  const auto bytes = file_.bytes();
  const auto data = data_start < bytes.size() ? bytes.subspan(data_start) : std::span<const std::byte>();
  tensors_ = place_tensors(std::move(entries), data, alignment, where);
}

const GgufTensor* GgufFile::find(std::string_view name) const {
  for (const GgufTensor& tensor : tensors_) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

}  // namespace qat
