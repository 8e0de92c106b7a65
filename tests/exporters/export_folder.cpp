// qat_export_folder FOLDER PLAN OUTPUT.gguf [THREADS]: exports a model folder under a plan, for tests of real clients
// and speed. Prints figures as JSON.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <iostream>
#include <string>
#include <thread>

#include "core/error.h"
#include "core/process_memory.h"
#include "exporters/gguf_exporter.h"
#include "gemma4/model_folder.h"

namespace {

// Largest anonymous memory seen while the object lives, sampled by a thread.
class PeakMemory {
 public:
  PeakMemory()
      : sampler_([this] {
          while (!stopped_) {
            peak_ = std::max<uint64_t>(peak_, qat::current_memory_use().anonymous);
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
          }
        }) {}
  uint64_t finish() {
    stopped_ = true;
    if (sampler_.joinable()) sampler_.join();
    return peak_;
  }
  ~PeakMemory() { finish(); }
  PeakMemory(const PeakMemory&) = delete;
  PeakMemory& operator=(const PeakMemory&) = delete;

 private:
  std::atomic<bool> stopped_{false};
  std::atomic<uint64_t> peak_{0};
  std::thread sampler_;
};

void export_folder(const std::string& path, const std::string& plan_name, const std::string& output, int threads) {
  const qat::ModelFolder folder(path);
  const qat::ResolvedPlan plan = qat::QuantPlan::load(plan_name).resolve(folder.table());
  const qat::GgufVocabulary vocabulary = qat::read_gguf_vocabulary(path, folder.config());
  qat::GgufExportInputs inputs;
  inputs.config = &folder.config();
  inputs.source = &folder.tensors();
  inputs.vocabulary = &vocabulary;
  inputs.name = folder.path().filename().string();
  inputs.sampling = qat::read_sampling_defaults(path);
  inputs.output = output;
  inputs.threads = threads;
  for (const qat::WeightSpec& weight : folder.table().weights()) {
    inputs.weights.push_back({&weight, &folder.masters().of(weight), plan.of(weight.name).scheme, {}});
  }
  PeakMemory peak;
  const qat::GgufExportFigures figures = qat::export_gguf(inputs);
  const auto weights = static_cast<double>(figures.weights);
  std::cout << "{\"weights\": " << figures.weights << ", \"file_bytes\": " << figures.file_bytes
            << ", \"seconds\": " << figures.seconds
            << ", \"million_weights_per_second\": " << weights / figures.seconds / 1e6
            << ", \"peak_anonymous_bytes\": " << peak.finish() << "}\n";
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 4 || argc > 5) qat::fail_usage("usage: qat_export_folder FOLDER PLAN OUTPUT.gguf [THREADS]");
    export_folder(argv[1], argv[2], argv[3], argc == 5 ? std::stoi(argv[4]) : 2);
    return 0;
  } catch (const qat::Error& error) {
    std::cerr << "qat_export_folder: " << error.what() << "\n";
    return static_cast<int>(error.exit_code());
  }
}
