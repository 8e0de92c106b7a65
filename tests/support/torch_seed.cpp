// Linked into the test programs that draw random tensors: every test starts from the same seed, so that a run repeats.
// GEMMA_QAT_TEST_SEED=N starts from another one, --gtest_repeat takes the next one in every round, a failure prints it.
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <iostream>

namespace qat {
namespace {

class TorchSeed : public testing::EmptyTestEventListener {
 public:
  TorchSeed() {
    if (const char* first = std::getenv("GEMMA_QAT_TEST_SEED")) first_ = std::strtoull(first, nullptr, 10);
  }

 private:
  void OnTestIterationStart(const testing::UnitTest& /*tests*/, int iteration) override {
    seed_ = first_ + static_cast<uint64_t>(iteration);
  }
  void OnTestStart(const testing::TestInfo& /*test*/) override { at::manual_seed(seed_); }
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (result.failed()) std::cerr << "random tensors: GEMMA_QAT_TEST_SEED=" << seed_ << '\n';
  }

  uint64_t first_ = 1;
  uint64_t seed_ = 1;
};

const bool registered = [] {
  testing::UnitTest::GetInstance()->listeners().Append(new TorchSeed);  // owned by GoogleTest
  return true;
}();

}  // namespace
}  // namespace qat
