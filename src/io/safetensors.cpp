#include "io/safetensors.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "core/checked_math.h"
#include "core/error.h"
#include "core/json.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

struct ElementRow {
  ElementType type;
  std::string_view name;
  int64_t bytes;
};
constexpr std::array kElements{
    ElementRow{ElementType::F32, "F32", 4}, ElementRow{ElementType::F16, "F16", 2},
    ElementRow{ElementType::BF16, "BF16", 2}, ElementRow{ElementType::F64, "F64", 8},
    ElementRow{ElementType::I8, "I8", 1},   ElementRow{ElementType::U8, "U8", 1},
    ElementRow{ElementType::I16, "I16", 2}, ElementRow{ElementType::I32, "I32", 4},
    ElementRow{ElementType::I64, "I64", 8}, ElementRow{ElementType::Bool, "BOOL", 1},
};

const ElementRow& row_of(ElementType type) {
  const auto* row = std::find_if(kElements.begin(), kElements.end(), [&](const auto& r) { return r.type == type; });
  QAT_CHECK(row != kElements.end());
  return *row;
}

// The library the format comes from limits headers to 100 MB.
constexpr uint64_t kLargestHeader = 100'000'000;

TensorView parse_entry(const std::string& name, const nlohmann::json& entry, std::span<const std::byte> data,
                       const std::string& where) {
  const std::string tensor = where + ": tensor \"" + name + "\"";
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") || !entry.contains("data_offsets")) {
    fail(tensor, ": the header entry needs dtype, shape and data_offsets");
  }
  const auto& dtype = entry["dtype"];
  const auto* row = std::find_if(kElements.begin(), kElements.end(),
                                 [&](const auto& r) { return dtype.is_string() && r.name == dtype.get<std::string>(); });
  if (row == kElements.end()) fail(tensor, ": element type ", dtype.dump(), " is not supported");

  TensorView view{name, row->type, {}, {}};
  if (!entry["shape"].is_array()) fail(tensor, ": shape is not a list");
  for (const auto& size : entry["shape"]) {
    if (!size.is_number_unsigned() || size.get<uint64_t>() > INT64_MAX) fail(tensor, ": shape has ", size.dump());
    view.shape.push_back(size.get<int64_t>());
  }
  const auto elements = element_count(view.shape);
  const auto bytes = elements ? checked_multiply(static_cast<uint64_t>(*elements), static_cast<uint64_t>(row->bytes))
                              : std::nullopt;
  if (!bytes) fail(tensor, ": shape ", entry["shape"].dump(), " overflows");

  const auto& offsets = entry["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned()) {
    fail(tensor, ": data_offsets must be two whole numbers, found ", offsets.dump());
  }
  const auto begin = offsets[0].get<uint64_t>();
  const auto end = offsets[1].get<uint64_t>();
  if (begin > end || end > data.size()) {
    fail(tensor, ": bytes ", begin, " to ", end, " lie outside the file's ", data.size(), " bytes of data (truncated?)");
  }
  if (end - begin != *bytes) {
    fail(tensor, ": shape ", entry["shape"].dump(), " of ", row->name, " needs ", *bytes, " bytes, the header gives ",
         end - begin);
  }
  view.bytes = data.subspan(begin, end - begin);
  return view;
}

void check_no_overlap(std::vector<TensorView> views, std::span<const std::byte> data, const std::string& where) {
  std::sort(views.begin(), views.end(), [](const auto& a, const auto& b) { return a.bytes.data() < b.bytes.data(); });
  const std::byte* end = data.data();
  const std::string* previous = nullptr;
  for (const TensorView& view : views) {
    if (view.bytes.empty()) continue;
    if (view.bytes.data() < end) fail(where, ": tensors \"", *previous, "\" and \"", view.name, "\" overlap");
    if (view.bytes.data() > end) fail(where, ": ", view.bytes.data() - end, " unused bytes before \"", view.name, "\"");
    end = view.bytes.data() + view.bytes.size();
    previous = &view.name;
  }
  if (end != data.data() + data.size()) {
    fail(where, ": ", data.data() + data.size() - end, " bytes after the last tensor");
  }
}

}  // namespace

int64_t element_bytes(ElementType type) { return row_of(type).bytes; }
std::string shape_text(std::span<const int64_t> shape) {
  std::string text = "[";
  for (const int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

std::string_view element_name(ElementType type) { return row_of(type).name; }

SafetensorsSource::SafetensorsSource(const fs::path& path) : path_(path) {
  if (!fs::is_directory(path)) {
    add_file(path);
  } else if (const fs::path index = path / "model.safetensors.index.json"; fs::exists(index)) {
    const auto json = load_json(index);
    if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) {
      fail(index.string(), ": has no weight_map");
    }
    std::set<std::string> shards;
    for (const auto& item : json["weight_map"].items()) {
      if (!item.value().is_string()) fail(index.string(), ": weight_map of \"", item.key(), "\" is not a file name");
      const auto shard = item.value().get<std::string>();
      if (fs::path(shard).filename() != fs::path(shard)) fail(index.string(), ": \"", shard, "\" leaves the folder");
      shards.insert(shard);
    }
    for (const std::string& shard : shards) {
      if (!fs::exists(path / shard)) fail((path / shard).string(), ": shard is missing (named in ", index.string(), ")");
      add_file(path / shard);
    }
    std::set<std::string_view> present;
    for (const TensorView& tensor : tensors_) present.insert(tensor.name);
    for (const auto& item : json["weight_map"].items()) {
      if (!present.contains(item.key())) fail(index.string(), ": tensor \"", item.key(), "\" is in none of the shards");
    }
  } else {
    if (!fs::exists(path / "model.safetensors")) {
      fail(path.string(), ": has neither model.safetensors nor model.safetensors.index.json");
    }
    add_file(path / "model.safetensors");
  }
  std::sort(tensors_.begin(), tensors_.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  for (size_t i = 1; i < tensors_.size(); ++i) {
    if (tensors_[i].name == tensors_[i - 1].name) fail(path.string(), ": tensor \"", tensors_[i].name, "\" comes twice");
  }
}

void SafetensorsSource::add_file(const fs::path& path) {
  files_.emplace_back(path);
  const std::string where = path.string();
  ByteReader reader(files_.back().bytes(), where);
  const auto header_size = reader.read<uint64_t>();
  if (header_size > kLargestHeader) fail(where, ": header of ", header_size, " bytes is not a safetensors header");
  const auto header = parse_json(reader.take_text(header_size), where + ": header");
  if (!header.is_object()) fail(where, ": header is not a JSON object");
  const auto data = files_.back().bytes().subspan(reader.offset());

  std::vector<TensorView> views;
  for (const auto& item : header.items()) {
    if (item.key() == "__metadata__") {
      for (const auto& entry : item.value().items()) {
        if (entry.value().is_string()) metadata_[entry.key()] = entry.value().get<std::string>();
      }
      continue;
    }
    views.push_back(parse_entry(item.key(), item.value(), data, where));
  }
  check_no_overlap(views, data, where);
  tensors_.insert(tensors_.end(), views.begin(), views.end());
}

const TensorView* SafetensorsSource::find(std::string_view name) const {
  const auto found = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                      [](const TensorView& tensor, std::string_view n) { return tensor.name < n; });
  return found != tensors_.end() && found->name == name ? &*found : nullptr;
}

void SafetensorsSource::release(std::span<const std::byte> bytes) const {
  for (const MappedFile& file : files_) {
    const auto all = file.bytes();
    if (bytes.data() >= all.data() && bytes.data() < all.data() + all.size()) file.release(bytes);
  }
}

void SafetensorsWriter::declare(std::string name, ElementType type, std::vector<int64_t> shape) {
  QAT_CHECK(!header_written_);
  const auto elements = element_count(shape);
  QAT_CHECK(elements.has_value());
  const auto bytes = static_cast<uint64_t>(*elements * element_bytes(type));
  declared_bytes_ += bytes;
  declared_.push_back({std::move(name), type, std::move(shape), bytes});
}

void SafetensorsWriter::write_header() {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata_.empty()) header["__metadata__"] = metadata_;
  uint64_t offset = 0;
  for (const Declared& tensor : declared_) {
    header[tensor.name] = {{"dtype", element_name(tensor.type)},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + tensor.bytes}}};
    offset += tensor.bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // data starts 8-byte aligned
  const uint64_t size = text.size();
  file_.write(std::as_bytes(std::span(&size, 1)));
  file_.write(text);
  header_written_ = true;
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  if (!header_written_) write_header();
  written_bytes_ += bytes.size();
  QAT_CHECK(written_bytes_ <= declared_bytes_);
  file_.write(bytes);
}

void SafetensorsWriter::commit() {
  if (!header_written_) write_header();
  QAT_CHECK(written_bytes_ == declared_bytes_);
  file_.commit();
}

}  // namespace qat
