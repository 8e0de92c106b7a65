#include <algorithm>
#include <cstring>

#include "core/checked_math.h"
#include "core/error.h"
#include "io/gguf.h"
#include "io/gguf_format.h"

namespace qat {

namespace {

uint64_t padded(uint64_t size) { return (size + gguf::kAlignment - 1) / gguf::kAlignment * gguf::kAlignment; }

// The part of the file before the data, collected in memory.
class HeaderBytes {
 public:
  template <class T>
  void put(T value) {
    static_assert(std::is_arithmetic_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void put(const std::string& text) {
    put<uint64_t>(text.size());
    bytes_ += text;
  }
  void put_raw(std::string_view text) { bytes_ += text; }

  void put_array(const GgufArray& array) {
    put<uint32_t>(static_cast<uint32_t>(gguf_type(array)));
    std::visit(
        [&](const auto& list) {
          if constexpr (std::is_same_v<std::decay_t<decltype(list)>, std::monostate>) {
            QAT_CHECK(false);
          } else {
            put<uint64_t>(list.size());
            for (const auto& element : list) put(element);
          }
        },
        array);
  }

  void put_value(const GgufValue& value) {
    put<uint32_t>(static_cast<uint32_t>(gguf_type(value)));
    std::visit(
        [&](const auto& held) {
          if constexpr (std::is_same_v<std::decay_t<decltype(held)>, GgufArray>) {
            put_array(held);
          } else {
            put(held);
          }
        },
        value);
  }

  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

}  // namespace

GgufWriter::GgufWriter(const std::filesystem::path& path) : file_(path), metadata_(path.string()) {}

void GgufWriter::add(std::string key, GgufValue value) {
  QAT_CHECK(data_start_ == 0 && key != gguf::kAlignmentKey);
  metadata_.add(std::move(key), std::move(value));
}

void GgufWriter::declare(std::string name, std::vector<int64_t> shape, Scheme id) {
  QAT_CHECK(data_start_ == 0 && !shape.empty() && shape.size() <= gguf::kMaxDimensions);
  const QuantScheme& row = scheme(id);
  if (name.empty() || name.size() > gguf::kMaxNameBytes) {
    fail("tensor \"", name, "\": a GGUF tensor name has 1 to ", gguf::kMaxNameBytes, " bytes");
  }
  if (std::any_of(declared_.begin(), declared_.end(), [&](const Declared& d) { return d.name == name; })) {
    fail("tensor \"", name, "\" comes twice");
  }
  if (shape.back() % row.block_size != 0) {
    fail("tensor \"", name, "\": rows of ", shape.back(), " values are no whole blocks of ", row.name, " (",
         row.block_size, "); choose another scheme for it in the plan");
  }
  const auto elements = element_count(shape);
  if (!elements || *elements == 0) fail("tensor \"", name, "\": the shape is empty or overflows");
  const auto bytes =
      checked_multiply(static_cast<uint64_t>(*elements / row.block_size), static_cast<uint64_t>(row.block_bytes));
  const auto end = bytes ? checked_add(data_bytes_, *bytes) : std::nullopt;
  if (!end || *end > INT64_MAX) fail("tensor \"", name, "\": the shape overflows");
  declared_.push_back({std::move(name), std::move(shape), id, *bytes, data_bytes_});
  data_bytes_ = padded(*end);
}

void GgufWriter::begin_data() {
  QAT_CHECK(data_start_ == 0);
  HeaderBytes header;
  header.put_raw(gguf::kMagic);
  header.put<uint32_t>(gguf::kVersion);
  header.put<uint64_t>(declared_.size());
  header.put<uint64_t>(metadata_.entries().size());
  for (const auto& [key, value] : metadata_.entries()) {
    header.put(key);
    header.put_value(value);
  }
  for (const Declared& tensor : declared_) {
    header.put(tensor.name);
    header.put<uint32_t>(static_cast<uint32_t>(tensor.shape.size()));
    std::for_each(tensor.shape.rbegin(), tensor.shape.rend(), [&](int64_t size) { header.put<int64_t>(size); });
    header.put<int32_t>(scheme(tensor.scheme).gguf_type);
    header.put<uint64_t>(tensor.offset);
  }
  file_.write(header.bytes());
  file_.pad_to(gguf::kAlignment);
  data_start_ = file_.size();
}

void GgufWriter::write(size_t tensor, uint64_t offset, std::span<const std::byte> bytes) {
  QAT_CHECK(data_start_ != 0 && tensor < declared_.size());
  const Declared& declared = declared_[tensor];
  QAT_CHECK(offset <= declared.bytes && bytes.size() <= declared.bytes - offset);
  file_.write_at(data_start_ + declared.offset + offset, bytes);
  written_bytes_ += bytes.size();
}

void GgufWriter::commit() {
  QAT_CHECK(data_start_ != 0);
  uint64_t wanted = 0;
  for (const Declared& tensor : declared_) wanted += tensor.bytes;
  QAT_CHECK(written_bytes_ == wanted);
  // Padding between tensors is the zeros that a file has where nothing was written; after the last one it must be
  // written.
  if (!declared_.empty()) {
    const uint64_t end = declared_.back().offset + declared_.back().bytes;
    const std::vector<std::byte> zeros(data_bytes_ - end);
    file_.write_at(data_start_ + end, zeros);
  }
  file_.commit();
}

}  // namespace qat
