// The small parts of the reference inference.
#include <gtest/gtest.h>

#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "core/float_types.h"
#include "core/random.h"
#include "quant/grid.h"
#include "reference/device_attention.h"
#include "reference/experts.h"
#include "reference/float_products.h"
#include "reference/key_value_cache.h"
#include "reference/thread_pool.h"
#include "support/expect_error.h"

namespace qat {
namespace {

Matrix random_matrix(int64_t rows, int64_t columns, uint64_t seed) {
  SplitMix64 random(seed);
  Matrix values(rows, columns);
  for (float& value : values.reshaped()) value = static_cast<float>(2 * random.uniform() - 1);
  return values;
}

TEST(ThreadPool, RunsEveryIterationOnce) {
  ThreadPool pool(3);
  for (const int64_t count : {0, 1, 2, 1000}) {
    std::vector<std::atomic<int>> runs(static_cast<size_t>(count));
    pool.run(count, [&](int64_t i) { ++runs[static_cast<size_t>(i)]; });
    for (const auto& times : runs) EXPECT_EQ(times, 1);
  }
}

TEST(ThreadPool, PassesExceptionsOnAndLivesOn) {
  ThreadPool pool(2);
  EXPECT_THROW(pool.run(50,
                        [](int64_t i) {
                          if (i == 7) throw std::runtime_error("seven");
                        }),
               std::runtime_error);
  std::atomic<int> runs = 0;
  pool.run(10, [&](int64_t) { ++runs; });
  EXPECT_EQ(runs, 10);
}

TEST(FloatProducts, TilesEqualInnerProducts) {
  for (const int64_t columns : {1, 7, 64, 101}) {
    for (const int64_t tokens : {1, 2, 3, 8}) {
      const Matrix x = random_matrix(tokens, columns, 11);
      const Matrix weights = random_matrix(9, columns, 12);
      Matrix y = Matrix::Constant(tokens, 12, 5.0f);
      multiply_tile(x.data(), tokens, weights.data(), 9, columns, y.data() + 2, y.cols());
      const Eigen::MatrixXd expected = x.cast<double>() * weights.cast<double>().transpose();
      EXPECT_LE((y.middleCols(2, 9).cast<double>() - expected).cwiseAbs().maxCoeff(), 2e-5);
      EXPECT_TRUE((y.leftCols(2).array() == 5.0f).all() && (y.rightCols(1).array() == 5.0f).all());
    }
  }
}

TEST(FloatProducts, RoundingToBFloat16IsThatOfOneValue) {
  std::vector<float> values{0.0f,
                            -0.0f,
                            1.00390625f,
                            1.01171875f,
                            -3.3e38f,
                            3.4028235e38f,
                            1e-40f,
                            std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::quiet_NaN()};
  SplitMix64 random(13);
  for (int i = 0; i < 1000; ++i) values.push_back(std::bit_cast<float>(static_cast<uint32_t>(random.next())));
  std::vector<float> rounded = values;
  round_to_bfloat16(rounded);
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isnan(values[i])) {
      EXPECT_TRUE(std::isnan(rounded[i]));
    } else {
      EXPECT_EQ(std::bit_cast<uint32_t>(rounded[i]), std::bit_cast<uint32_t>(to_float(to_bfloat16(values[i]))))
          << values[i];
    }
  }
}

TEST(KeyValueCache, KeepsWhatItsTypeCanHold) {
  const Matrix keys = random_matrix(5, 128, 14);
  const Matrix values = random_matrix(5, 128, 15);
  for (const auto& [type, tolerance] :
       {std::pair{CacheType::F32, 0.0}, {CacheType::F16, 5e-4}, {CacheType::Q8_0, 4.5e-3}}) {
    KeyValueCache cache(type, 2, 64, 0);
    cache.append(keys.topRows(2), values.topRows(2));
    cache.append(keys.bottomRows(3), values.bottomRows(3));
    for (int64_t position = 0; position < 5; ++position) {
      for (int64_t head = 0; head < 2; ++head) {
        Matrix read(2, 64);
        cache.decode_key(position, head, row_of(read, 0));
        cache.decode_value(position, head, row_of(read, 1));
        EXPECT_LE((read.row(0) - keys.row(position).segment(head * 64, 64)).cwiseAbs().maxCoeff(), tolerance);
        EXPECT_LE((read.row(1) - values.row(position).segment(head * 64, 64)).cwiseAbs().maxCoeff(), tolerance);
      }
    }
  }
}

TEST(KeyValueCache, Int8HoldsTheCodesOfTheGrid) {
  const Matrix keys = random_matrix(3, 64, 16);
  const Matrix values = random_matrix(3, 64, 17);
  const CacheScales scales{0.011f, 0.004f};  // values clip
  KeyValueCache cache(CacheType::Int8, 2, 32, 0, scales);
  cache.append(keys, values);
  for (int64_t i = 0; i < keys.size(); ++i) {
    const auto code = [&](const Matrix& x, float scale) {
      return grid::integer_code(x.data()[i], grid::inverse_scale(scale), grid::kActivationMin, grid::kActivationMax);
    };
    const int64_t position = i / 64;
    const int64_t head = i % 64 / 32;
    const auto at = static_cast<size_t>(i % 32);
    EXPECT_EQ(static_cast<int8_t>(cache.key(position, head)[at]), code(keys, scales.key));
    EXPECT_EQ(static_cast<int8_t>(cache.value(position, head)[at]), code(values, scales.value));
    std::vector<float> decoded(32);
    cache.decode_value(position, head, decoded);
    EXPECT_EQ(decoded[at], grid::integer_value(code(values, scales.value), scales.value));
  }
}

TEST(KeyValueCache, DropsOnlyWhatNobodySees) {
  constexpr int64_t kWindow = 16;
  KeyValueCache cache(CacheType::F32, 1, 32, kWindow);
  for (int64_t position = 0; position < 400; ++position) {
    const Matrix row = Matrix::Constant(1, 32, static_cast<float>(position));
    cache.append(row, row);
    for (int64_t seen = std::max<int64_t>(0, position - kWindow + 1); seen <= position; ++seen) {
      float first = -1;
      std::memcpy(&first, cache.key(seen, 0).data(), sizeof(first));
      ASSERT_EQ(first, static_cast<float>(seen));
    }
  }
  EXPECT_LE(cache.held_positions(), 4 * kWindow + 64);
}

TEST(DeviceAttention, VectorExponentialIsCloseToTheLibrarys) {
  std::vector<float> values;
  for (int i = 0; i < 4096; ++i) values.push_back(-0.0205f * static_cast<float>(i));
  values.push_back(-std::numeric_limits<float>::infinity());
  std::vector<float> exponentials = values;
  const double sum = device::soft_max_exponentials(exponentials, 0.0f);
  double expected = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double exact = std::exp(static_cast<double>(values[i]));
    expected += exact;
    EXPECT_NEAR(exponentials[i], exact, 2e-7 * exact);
  }
  EXPECT_NEAR(sum, expected, 1e-6 * expected);
}

TEST(Experts, LargestLogitsShareTheirProbability) {
  ThreadPool pool(1);
  const std::vector<float> logits{0.5f, 2.0f, -1.0f, 1.0f, 0.0f};
  for (const auto& arithmetic : {make_float_arithmetic(pool), make_device_arithmetic(pool)}) {
    const auto choices = choose_experts(*arithmetic, logits, 3);
    ASSERT_EQ(choices.size(), 3u);
    EXPECT_EQ(choices[0].expert, 1);
    EXPECT_EQ(choices[1].expert, 3);
    EXPECT_EQ(choices[2].expert, 0);
    const double total = std::exp(2.0) + std::exp(1.0) + std::exp(0.5);
    EXPECT_NEAR(choices[0].weight, std::exp(2.0) / total, 1e-6);
    EXPECT_NEAR(choices[1].weight, std::exp(1.0) / total, 1e-6);
    EXPECT_NEAR(choices[2].weight, std::exp(0.5) / total, 1e-6);
  }
}

}  // namespace
}  // namespace qat
