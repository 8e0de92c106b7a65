// Masters on 4-bit lattices: every way that trainers choose scales is recognised, nothing else is, whatever the
// instruction set. The judge is a search through all fp16 numbers with the scalar rules.
#include "quant/lattice.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "quant/block_codec.h"
#include "quant/quantized_digest.h"
#include "quant/scalar_codec.h"
#include "quant/trained_lattices.h"
#include "quant/weight_rows.h"
#include "support/fresh_seed.h"

namespace qat {
namespace {

using test::Convention;
using test::kConventions;
using test::Law;
using test::RowKind;
using test::StepType;
using testing::fresh_seed;

struct Recovery {
  std::vector<Float16> scales;
  LatticeCounts counts;
};

template <class Value>
Recovery recover(const std::vector<Value>& master) {
  Recovery result{std::vector<Float16>(master.size() / 32), {}};
  result.counts = recover_block_scales(std::span(master), result.scales);
  return result;
}

template <class Value>
std::vector<std::byte> encode(const std::vector<Value>& master, const std::vector<Float16>& scales) {
  std::vector<std::byte> blocks(master.size() / 32 * scalar::kBytesQ4_0);
  encode_blocks(Scheme::Q4_0, std::span<const Value>(master), scales, blocks);
  return blocks;
}

template <class Value>
std::vector<int8_t> codes_of(const std::vector<Value>& master, const std::vector<Float16>& scales) {
  std::vector<int8_t> codes(master.size());
  unpack_codes(Scheme::Q4_0, encode(master, scales), codes);
  return codes;
}

std::vector<BFloat16> forward_values(const std::vector<BFloat16>& master, const std::vector<Float16>& scales) {
  std::vector<BFloat16> values(master.size());
  fake_quantize_blocks(Scheme::Q4_0, master, scales, std::span(values));
  return values;
}

bool gives_back(const std::vector<float>& block, Float16 scale) {
  const float inverse = grid::inverse_scale(to_float(scale));
  return std::all_of(block.begin(), block.end(), [&](float value) {
    return to_float(to_bfloat16(grid::q4_0_value(grid::q4_0_code(value, inverse), scale))) == value;
  });
}

// Whether any fp16 scale there is gives back all values of a block of BF16 numbers. One whose largest value is more
// than eight steps, or less than one, cannot.
bool is_on_a_lattice(const std::vector<float>& block) {
  constexpr int kMargin = 32;  // a hundredth and more
  const float magnitude = test::largest(block);
  const int first = std::max(0, to_float16(magnitude / 8).bits - kMargin);
  const int last = std::min(0x7bff, to_float16(magnitude).bits + kMargin);
  for (int bits = first; bits <= last; ++bits) {
    for (const int sign : {0, 0x8000}) {
      if (gives_back(block, {static_cast<uint16_t>(bits | sign)})) return true;
    }
  }
  return false;
}

// Blocks whose codes are the trainer's, but for the sign of a step that does not need -8.
size_t same_codes(const std::vector<int8_t>& found, const std::vector<int8_t>& trained) {
  size_t same = 0;
  for (size_t first = 0; first < found.size(); first += 32) {
    bool equal = true, opposite = true;
    for (size_t i = first; i < first + 32; ++i) {
      equal &= found[i] == trained[i];
      opposite &= found[i] == -trained[i];
    }
    same += equal || opposite ? 1 : 0;
  }
  return same;
}

template <class Body>
void for_each_convention(std::initializer_list<StepType> types, const Body& body) {
  for (const Convention& convention : kConventions) {
    for (const StepType type : types) {
      for (const Law law : {Law::Gaussian, Law::Student}) {
        SCOPED_TRACE(std::string(convention.name) + ", step type " + std::to_string(static_cast<int>(type)) + ", law " +
                     std::to_string(static_cast<int>(law)));
        body(convention, type, law);
      }
    }
  }
}

TEST(LatticeRecovery, FindsEveryConventionExactly) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  SplitMix64 random(seed);
  for_each_convention({StepType::Float16, StepType::BFloat16},
                      [&](const Convention& convention, StepType type, Law law) {
                        const auto trained = test::train(convention, type, law, 5000, random);
                        const auto master = test::to_bfloat16(trained.values);
                        const Recovery found = recover(master);
                        EXPECT_EQ(found.counts, (LatticeCounts{5000, 0, 0}));
                        EXPECT_EQ(test::widen(forward_values(master, found.scales)), test::widen(master));
                        // Codes with a common factor are on a coarser lattice as well.
                        EXPECT_GE(same_codes(codes_of(master, found.scales), trained.codes), 4990U);
                      });
}

// Steps of 24 bits need not have an fp16 number in their place: those that have one are found, the others keep codes.
TEST(LatticeRecovery, OfFp32StepsFindsWhatFp16CanHold) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  SplitMix64 random(seed);
  for_each_convention({StepType::Float32}, [&](const Convention& convention, StepType type, Law law) {
    const auto trained = test::train(convention, type, law, 200, random);
    const auto master = test::to_bfloat16(trained.values);
    const Recovery found = recover(master);
    EXPECT_EQ(found.counts.off, 0);
    EXPECT_GE(found.counts.exact, 180);
    EXPECT_GE(same_codes(codes_of(master, found.scales), trained.codes), 195U);
    int64_t possible = 0;
    for (size_t first = 0; first < master.size(); first += 32) {
      possible += is_on_a_lattice(test::widen({master.begin() + first, master.begin() + first + 32})) ? 1 : 0;
    }
    EXPECT_EQ(found.counts.exact, possible);
  });
}

TEST(LatticeRecovery, OfBfloat16StepsAndOfGgmlsRuleFindsTheVeryScale) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  SplitMix64 random(seed);
  const auto count_equal = [](const std::vector<Float16>& found, const std::vector<float>& steps) {
    size_t equal = 0;
    for (size_t i = 0; i < found.size(); ++i) equal += std::fabs(to_float(found[i])) == std::fabs(steps[i]) ? 1 : 0;
    return equal;
  };
  for (const Convention& convention : {kConventions[0], kConventions[1]}) {
    std::vector<BFloat16> master;
    std::vector<float> steps;
    for (int i = 0; i < 2000; ++i) {
      const auto weights = test::draw_weights(Law::Gaussian, random);
      const float step =
          test::rounded_step(convention.step(test::widen(test::to_bfloat16(weights))), StepType::BFloat16);
      steps.push_back(step);
      for (const float weight : weights) {
        const int code = std::clamp(static_cast<int>(std::nearbyint(weight / step)), convention.code_min, 7);
        master.push_back(to_bfloat16(step * static_cast<float>(code)));
      }
    }
    EXPECT_GE(count_equal(recover(master).scales, steps), 1990U) << convention.name;
  }
}

TEST(LatticeRecovery, OfMastersInFp32AndFp16GivesBackTheNumbersOfTheFile) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  SplitMix64 random(seed);
  for_each_convention({StepType::Float16}, [&](const Convention& convention, StepType type, Law law) {
    const auto trained = test::train(convention, type, law, 1000, random);
    const Recovery found = recover(trained.values);
    EXPECT_EQ(found.counts.exact, 1000);
    std::vector<float> decoded(trained.values.size());
    decode_blocks(Scheme::Q4_0, encode(trained.values, found.scales), decoded);
    EXPECT_EQ(decoded, trained.values);

    std::vector<Float16> halves;
    for (const float value : trained.values) halves.push_back(to_float16(value));
    const Recovery of_halves = recover(halves);
    EXPECT_EQ(of_halves.counts.exact, 1000);
    decode_blocks(Scheme::Q4_0, encode(trained.values, of_halves.scales), decoded);
    for (size_t i = 0; i < decoded.size(); ++i) ASSERT_EQ(to_float(to_float16(decoded[i])), to_float(halves[i]));
  });
}

TEST(LatticeRecovery, OfMastersInFp32WithFp32StepsIsThatOfTheirBfloat16Numbers) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  SplitMix64 random(seed);
  const auto trained = test::train(kConventions[2], StepType::Float32, Law::Gaussian, 2000, random);
  const Recovery found = recover(trained.values);
  EXPECT_EQ(found.counts.off, 0);
  EXPECT_GE(found.counts.exact, 1800);
  EXPECT_GE(same_codes(codes_of(test::to_bfloat16(trained.values), found.scales), trained.codes), 1990U);
}

// ---- What is on no lattice

// Exactly those blocks are found that the search through all scales finds, and the others get the rule's scale.
void expect_what_the_judge_says(const std::vector<float>& block) {
  const auto master = test::to_bfloat16(block);
  const Recovery found = recover(master);
  ASSERT_EQ(found.counts.exact, is_on_a_lattice(block) ? 1 : 0);
  ASSERT_TRUE(std::isfinite(to_float(found.scales[0])));
  if (found.counts.exact == 1) {
    ASSERT_EQ(test::widen(forward_values(master, found.scales)), block);
  }
  if (found.counts.off == 0) return;
  const Float16 rule = to_float16(grid::q4_0_scale(scalar::Block(block)));
  if (std::isfinite(to_float(rule))) {
    ASSERT_EQ(found.scales[0], rule);
  }
}

TEST(LatticeRecovery, FindsNothingInWeightsOfAllKindsThatIsNotThere) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  SplitMix64 random(seed);
  for (const RowKind kind : test::kRowKinds) {
    SCOPED_TRACE("row kind " + std::to_string(static_cast<int>(kind)));
    for (int repeat = 0; repeat < 40; ++repeat) {
      expect_what_the_judge_says(test::widen(test::to_bfloat16(test::draw_row(kind, 32, random))));
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(LatticeRecovery, OneValueOffByOneBfloat16StepIsNoticed) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  SplitMix64 random(seed);
  int64_t off = 0, blocks = 0;
  for_each_convention({StepType::Float16, StepType::BFloat16},
                      [&](const Convention& convention, StepType type, Law law) {
                        for (int repeat = 0; repeat < 20; ++repeat) {
                          auto master = test::to_bfloat16(test::train(convention, type, law, 1, random).values);
                          BFloat16& value = master[random.below(32)];
                          const bool is_zero = (value.bits & 0x7fff) == 0;
                          value.bits = static_cast<uint16_t>(value.bits + (random.below(2) == 0 || is_zero ? 1 : -1));
                          const auto block = test::widen(master);
                          expect_what_the_judge_says(block);
                          if (::testing::Test::HasFatalFailure()) return;
                          off += recover(master).counts.exact == 0 ? 1 : 0;
                          ++blocks;
                        }
                      });
  // A value whose code no other value has, such as the extremum, may move: the block is on another lattice then.
  EXPECT_GT(off, blocks / 2);
}

TEST(LatticeRecovery, ZerosAndConstantBlocksAreOnALattice) {
  for (const float value : {0.0F, -0.0F, 1.0F, -0.0123F, 1e-5F, 30000.0F}) {
    const std::vector<float> block = test::widen(test::to_bfloat16(std::vector<float>(32, value)));
    EXPECT_EQ(recover(test::to_bfloat16(block)).counts.exact, 1) << value;
    expect_what_the_judge_says(block);
  }
}

TEST(LatticeRecovery, BlocksWithNumbersThatAreNoneOrTooLargeAreOffAndGetAFiniteScale) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (const float wrong : {nan, infinity, -infinity, 3e38F}) {
    for (const float others : {0.0F, 1.0F, infinity}) {
      for (const size_t place : {0, 17, 31}) {
        std::vector<float> block(32, others);
        block[place] = wrong;
        const Recovery in_bfloat16 = recover(test::to_bfloat16(block)), in_float = recover(block);
        EXPECT_EQ(in_bfloat16.counts, (LatticeCounts{0, 0, 1})) << wrong << " in " << others;
        EXPECT_EQ(in_float.counts, (LatticeCounts{0, 0, 1})) << wrong << " in " << others;
        EXPECT_TRUE(std::isfinite(to_float(in_bfloat16.scales[0])));
        EXPECT_TRUE(std::isfinite(to_float(in_float.scales[0])));
      }
    }
  }
}

// ---- Laws

TEST(LatticeRecovery, OfARecoveredMasterChangesNoCode) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  SplitMix64 random(seed);
  const auto expect_same_again = [](const std::vector<BFloat16>& master) {
    const Recovery first = recover(master);
    const auto quantized = forward_values(master, first.scales);
    const Recovery second = recover(quantized);
    EXPECT_EQ(second.counts.exact, second.counts.blocks());
    EXPECT_EQ(codes_of(quantized, second.scales), codes_of(master, first.scales));
  };
  for_each_convention({StepType::Float16, StepType::BFloat16, StepType::Float32},
                      [&](const Convention& convention, StepType type, Law law) {
                        expect_same_again(test::to_bfloat16(test::train(convention, type, law, 1000, random).values));
                      });
  for (const RowKind kind : {RowKind::Gaussian, RowKind::Outliers, RowKind::Bfloat16Ties, RowKind::Ties}) {
    expect_same_again(test::to_bfloat16(test::draw_row(kind, 32 * 1000, random)));
  }
}

TEST(LatticeRecovery, IsTheSameOnEveryInstructionSet) {
  const uint64_t seed = fresh_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  SplitMix64 random(seed);
  std::vector<float> values;
  for (const StepType type : {StepType::Float16, StepType::Float32}) {
    const auto trained = test::train(kConventions[5], type, Law::Student, 500, random);
    values.insert(values.end(), trained.values.begin(), trained.values.end());
  }
  for (const RowKind kind : test::kRowKinds) {
    const auto row = test::draw_row(kind, 32 * 100, random);
    values.insert(values.end(), row.begin(), row.end());
  }
  std::vector<Float16> halves;
  for (const float value : values) halves.push_back(to_float16(value));
  std::vector<std::vector<Recovery>> results;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    results.push_back({recover(values), recover(test::to_bfloat16(values)), recover(halves)});
    hwy::SetSupportedTargetsForTest(0);
    for (size_t i = 0; i < results.back().size(); ++i) {
      EXPECT_EQ(results.back()[i].counts, results[0][i].counts) << hwy::TargetName(target) << ", type " << i;
      EXPECT_EQ(results.back()[i].scales, results[0][i].scales) << hwy::TargetName(target) << ", type " << i;
    }
  }
}

}  // namespace
}  // namespace qat
