#include "fake_quant/weight_sample.h"

#include <gtest/gtest.h>

#include <set>

#include "fake_quant/tensor_values.h"

namespace qat {
namespace {

TEST(SampledGroups, AreOneOfEveryEqualPart) {
  const int64_t groups = 294'912;  // blocks of E2B's mlp.gate_proj, 48 to a row
  const at::Tensor places = sampled_groups(groups, 32);
  ASSERT_EQ(places.numel(), 512);
  std::set<int64_t> columns;
  for (int64_t part = 0; part < 512; ++part) {
    const int64_t place = places[part].item<int64_t>();
    EXPECT_GE(place, part * groups / 512);
    EXPECT_LT(place, (part + 1) * groups / 512);
    columns.insert(place % 48);
  }
  EXPECT_EQ(columns.size(), 48U);
  EXPECT_TRUE(sampled_groups(groups, 32).equal(places));
}

TEST(SampledGroups, OfASmallWeightAreAll) {
  for (const int64_t groups : {int64_t{1}, int64_t{7}, int64_t{512}}) {
    const at::Tensor places = sampled_groups(groups, 32);
    ASSERT_EQ(places.numel(), groups);
    for (int64_t i = 0; i < groups; ++i) EXPECT_EQ(places[i].item<int64_t>(), i);
  }
  EXPECT_EQ(sampled_groups(3, 1 << 20).numel(), 1);
}

}  // namespace
}  // namespace qat
