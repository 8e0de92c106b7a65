// A training run as a process of its own, to be killed: train_once CONFIG [--resume]
#include <cstdio>
#include <cstring>

#include "core/error.h"
#include "trainers/run_training.h"

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  try {
    const bool resume = argc > 2 && std::strcmp(argv[2], "--resume") == 0;
    qat::ProcessGroup group = qat::ProcessGroup::from_environment();
    return group.run([&] { return qat::run_training(qat::TrainConfig::load(argv[1], {}), resume, group); });
  } catch (const qat::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
