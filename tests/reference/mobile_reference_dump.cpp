// Writes what the reference inference computes from a mobile folder or a .litertlm file, for comparison with real
// clients.
//
//   qat_mobile_reference_dump MODEL float|device f32|int8 OUT_FOLDER < requests
//
// Each line of standard input is a request: token ids. The line's number N gives OUT_FOLDER/N.safetensors with
//   logits                     F32 [tokens, vocabulary]
//   WEIGHT.input, .output      I8 [tokens, width]: static codes of a linear's calibrated ends
//   cache.LAYER.keys, .values  I8 [tokens, width]: what an int8 cache holds
#include <cstdio>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "io/safetensors.h"
#include "quant/row_codec.h"
#include "reference/litertlm_model.h"
#include "reference/mobile_folder_model.h"
#include "reference/reference_model.h"

namespace {

using namespace qat;

struct Codes {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<int8_t> values;
};

// Keeps the codes that go by. An evaluation in several pieces would give a name twice: requests are shorter.
class Recorder final : public LinearObserver, public CacheObserver {
 public:
  explicit Recorder(const ReferenceWeights& weights) : weights_(weights) {}

  void computed(std::string_view weight, const Matrix& input, const Matrix& output) override {
    const LinearScales edges = weights_.weight(weight).edges;
    encode(std::string(weight) + ".input", input, edges.input);
    encode(std::string(weight) + ".output", output, edges.output);
  }
  void appended(int64_t layer, int64_t, int64_t positions, std::span<std::byte> keys,
                std::span<std::byte> values) override {
    if (!int8_cache) return;
    for (const auto& [part, bytes] : {std::pair{".keys", keys}, std::pair{".values", values}}) {
      const auto* first = reinterpret_cast<const int8_t*>(bytes.data());
      recorded.push_back({"cache." + std::to_string(layer) + part,
                          {positions, static_cast<int64_t>(bytes.size()) / positions},
                          {first, first + bytes.size()}});
    }
  }

  bool int8_cache = false;
  std::vector<Codes> recorded;

 private:
  void encode(const std::string& name, const Matrix& values, float scale) {
    if (scale == 0) return;
    Codes codes{name, {values.rows(), values.cols()}, {}};
    codes.values.resize(static_cast<size_t>(values.size()));
    encode_groups(Scheme::Int8, std::span(values.data(), codes.values.size()), {&scale, 1}, values.size(),
                  codes.values);
    recorded.push_back(std::move(codes));
  }

  const ReferenceWeights& weights_;
};

void answer(LanguageModel& model, Recorder& recorder, const std::string& line, const std::filesystem::path& file) {
  std::istringstream numbers(line);
  std::vector<int32_t> tokens;
  for (int32_t token = 0; numbers >> token;) tokens.push_back(token);
  if (tokens.empty()) fail_usage("request \"", line, "\": wanted token ids");
  recorder.recorded.clear();
  std::vector<float> logits;
  model.evaluate(tokens, 0,
                 [&](int64_t, std::span<const float> rows) { logits.insert(logits.end(), rows.begin(), rows.end()); });
  SafetensorsWriter writer(file);
  writer.declare("logits", ElementType::F32, {static_cast<int64_t>(tokens.size()), model.vocabulary_size()});
  for (const Codes& codes : recorder.recorded) writer.declare(codes.name, ElementType::I8, codes.shape);
  writer.write(std::as_bytes(std::span(logits)));
  for (const Codes& codes : recorder.recorded) writer.write(std::as_bytes(std::span(codes.values)));
  writer.commit();
}

// A model and the names and scales of its weights; `File` is MobileFolder or LitertlmFile.
template <class File, class Weights>
void run(const std::filesystem::path& path, const std::vector<std::string>& words) {
  const File file(path);
  const Weights weights(file);
  Recorder recorder(weights);
  recorder.int8_cache = words[1] == "int8";
  ReferenceOptions options;
  options.arithmetic = words[0] == "float" ? ArithmeticKind::Float : ArithmeticKind::Device;
  options.cache = recorder.int8_cache ? CacheType::Int8 : CacheType::F32;
  options.observer = &recorder;
  options.linears = &recorder;
  const auto model = make_reference_model(file, options);
  int64_t request = 0;
  for (std::string line; std::getline(std::cin, line); ++request) {
    answer(*model, recorder, line, std::filesystem::path(words[2]) / (std::to_string(request) + ".safetensors"));
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 5) fail_usage("usage: qat_mobile_reference_dump MODEL float|device f32|int8 OUT_FOLDER");
    const std::filesystem::path path(argv[1]);
    const std::vector<std::string> words(argv + 2, argv + argc);
    if (std::filesystem::is_directory(path)) {
      run<MobileFolder, MobileFolderModel>(path, words);
    } else {
      run<LitertlmFile, LitertlmModel>(path, words);
    }
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
