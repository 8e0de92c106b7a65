#include "reference/arithmetic.h"
#include "reference/mobile_products.h"

namespace qat {

namespace {

class MobileDeviceArithmetic final : public Arithmetic {
 public:
  explicit MobileDeviceArithmetic(ThreadPool& pool) : pool_(pool), floats_(make_float_arithmetic(pool)) {}

  Matrix linear(const Matrix& x, const WeightView& weight, bool row_by_row) const override {
    if (!weight.scheme->has_row_scales()) return floats_->linear(x, weight, row_by_row);
    if (weight.edges.input != 0 && weight.edges.output != 0) return mobile::static_product(x, weight, pool_);
    // An edge that was never calibrated has no QUANTIZE in the graph: the product is a dynamic one.
    Matrix input = x;
    fake_quantize_edge(input, weight.edges.input);
    Matrix y = mobile::dynamic_product(input, weight, pool_);
    fake_quantize_edge(y, weight.edges.output);
    return y;
  }

  Matrix gather(const WeightView& table, std::span<const int32_t> ids) const override {
    return floats_->gather(table, ids);
  }
  void norm(Matrix& x, int64_t width, std::span<const float> weight, float epsilon) const override {
    floats_->norm(x, width, weight, epsilon);
  }
  void rotate(Matrix& x, const RopeConfig& rope, int64_t first_position) const override {
    floats_->rotate(x, rope, first_position);
  }
  void gate(Matrix& gate, const Eigen::Ref<const Matrix, 0, Eigen::OuterStride<>>& factor) const override {
    floats_->gate(gate, factor);
  }
  Matrix attend(const Matrix& queries, const KeyValueCache& cache, const AttentionShape& shape) const override {
    return floats_->attend(queries, cache, shape);
  }
  double exponentials(std::span<float> values, float largest) const override {
    return floats_->exponentials(values, largest);
  }
  void softcap(Matrix& logits, float cap) const override { floats_->softcap(logits, cap); }

 private:
  ThreadPool& pool_;
  std::unique_ptr<Arithmetic> floats_;
};

}  // namespace

std::unique_ptr<Arithmetic> make_mobile_device_arithmetic(ThreadPool& pool) {
  return std::make_unique<MobileDeviceArithmetic>(pool);
}

}  // namespace qat
