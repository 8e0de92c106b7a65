#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "fake_quant/tensor_values.h"
#include "trainers/moments.h"

namespace qat {

namespace {

constexpr double kSmallest = 1e-30;       // added to g^2
constexpr int64_t kColumnsAtATime = 256;  // of a matrix whose columns are summed

// A stack of matrices; a vector is one matrix of one row.
struct Stack {
  int64_t matrices, rows, columns;

  explicit Stack(const at::Tensor& weight)
      : matrices(weight.dim() > 2 ? weight.numel() / (weight.size(-1) * weight.size(-2)) : 1),
        rows(weight.dim() > 1 ? weight.size(-2) : 1),
        columns(weight.size(-1)) {}
};

double square(float gradient) { return static_cast<double>(gradient) * gradient + kSmallest; }

float averaged(float before, double now, double decay) {
  return static_cast<float>(decay * before + (1 - decay) * now);
}

// Calls run(row, its gradients) for all rows of all matrices, on all threads.
template <class Run>
void for_rows(std::span<float> gradients, const Stack& stack, const Run& run) {
  const auto width = static_cast<size_t>(stack.columns);
  at::parallel_for(0, stack.matrices * stack.rows, 1, [&](int64_t begin, int64_t end) {
    for (auto row = static_cast<size_t>(begin); row < static_cast<size_t>(end); ++row) {
      run(row, gradients.subspan(row * width, width));
    }
  });
}

// One second moment: means over columns and over rows; of a vector all values, as means over its one row.
class FactoredMoment {
 public:
  explicit FactoredMoment(const TrainedWeight& weight)
      : stack_(weight.parameter),
        is_vector_(weight.parameter.dim() < 2),
        of_rows_{"row_moments/" + weight.name, at::zeros({stack_.matrices * stack_.rows}, at::kFloat)},
        of_columns_{"column_moments/" + weight.name, at::zeros({stack_.matrices * stack_.columns}, at::kFloat)} {}

  void turn_into_direction(const at::Tensor& gradient, int64_t step) {
    const auto gradients = values_of<float>(gradient);
    const double decay = 1 - std::pow(static_cast<double>(step), -0.8);
    take_rows(gradients, decay);
    take_columns(gradients, decay);
    divide_by_root(gradients);
    clip(gradients);
  }

  // A vector's one row mean says nothing that its values do not.
  std::vector<StateArray> arrays() const {
    return is_vector_ ? std::vector<StateArray>{of_columns_} : std::vector<StateArray>{of_rows_, of_columns_};
  }

 private:
  void take_rows(std::span<float> gradients, double decay) {
    const auto rows = values_of<float>(of_rows_.values);
    for_rows(gradients, stack_, [&](size_t row, std::span<float> values) {
      double sum = 0;
      for (const float value : values) sum += square(value);
      rows[row] = averaged(rows[row], sum / static_cast<double>(stack_.columns), decay);
    });
  }

  void take_columns(std::span<float> gradients, double decay) {
    const auto columns = values_of<float>(of_columns_.values);
    const int64_t parts = (stack_.columns + kColumnsAtATime - 1) / kColumnsAtATime;
    at::parallel_for(0, stack_.matrices * parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        const int64_t matrix = part / parts;
        const int64_t first = part % parts * kColumnsAtATime;
        const auto count = static_cast<size_t>(std::min(kColumnsAtATime, stack_.columns - first));
        std::vector<double> sums(count);
        for (int64_t row = 0; row < stack_.rows; ++row) {
          const auto offset = static_cast<size_t>((matrix * stack_.rows + row) * stack_.columns + first);
          for (size_t i = 0; i < count; ++i) sums[i] += square(gradients[offset + i]);
        }
        const auto targets = columns.subspan(static_cast<size_t>(matrix * stack_.columns + first), count);
        for (size_t i = 0; i < count; ++i) {
          targets[i] = averaged(targets[i], sums[i] / static_cast<double>(stack_.rows), decay);
        }
      }
    });
  }

  void divide_by_root(std::span<float> gradients) const {
    const auto rows = values_of<const float>(of_rows_.values);
    const auto columns = values_of<const float>(of_columns_.values);
    const auto height = static_cast<size_t>(stack_.rows), width = static_cast<size_t>(stack_.columns);
    std::vector<double> means;
    for (size_t first = 0; first < rows.size(); first += height) {
      const auto of_matrix = rows.subspan(first, height);
      means.push_back(std::accumulate(of_matrix.begin(), of_matrix.end(), 0.0) / static_cast<double>(height));
    }
    for_rows(gradients, stack_, [&](size_t row, std::span<float> values) {
      const auto of_matrix = columns.subspan(row / height * width, width);
      const double factor = is_vector_ ? 1 : rows[row] / means[row / height];
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<float>(values[i] / std::sqrt(factor * of_matrix[i]));
      }
    });
  }

  void clip(std::span<float> directions) const {
    std::vector<double> squares(static_cast<size_t>(stack_.matrices * stack_.rows));
    for_rows(directions, stack_, [&](size_t row, std::span<float> values) {
      for (const float value : values) squares[row] += static_cast<double>(value) * value;
    });
    const double sum = std::accumulate(squares.begin(), squares.end(), 0.0);
    const double root = std::sqrt(sum / static_cast<double>(directions.size()));
    if (root <= 1) return;
    for_rows(directions, stack_, [&](size_t, std::span<float> values) {
      for (float& value : values) value = static_cast<float>(value / root);
    });
  }

  Stack stack_;
  bool is_vector_;
  StateArray of_rows_, of_columns_;
};

class FactoredMoments final : public Moments {
 public:
  explicit FactoredMoments(const std::vector<TrainedWeight>& weights) : moments_(weights.begin(), weights.end()) {}

  void turn_into_direction(size_t index, const at::Tensor& gradient, int64_t step, const ElementRandom&) override {
    moments_[index].turn_into_direction(gradient, step);
  }

  std::vector<StateArray> state_arrays() const override {
    std::vector<StateArray> arrays;
    for (const FactoredMoment& moment : moments_) {
      for (StateArray& array : moment.arrays()) arrays.push_back(std::move(array));
    }
    return arrays;
  }

 private:
  std::vector<FactoredMoment> moments_;
};

}  // namespace

std::unique_ptr<Moments> make_factored_moments(const std::vector<TrainedWeight>& weights) {
  return std::make_unique<FactoredMoments>(weights);
}

}  // namespace qat
