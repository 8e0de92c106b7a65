// What the verbs share that write a checkpoint without training: options of quantization, calibration, the folder.
#pragma once

#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "cli/command.h"
#include "model/gemma4_model.h"
#include "trainers/base_model.h"
#include "trainers/train_config.h"

namespace qat {

// What --method and --calibration may be.
const std::vector<std::string>& quantize_methods();
const std::vector<std::string>& calibration_methods();

// --model, --plan, --method, calibration, --out and --force.
void add_checkpoint_options(cxxopts::Options& options);

// Throws Error (usage) for a value out of range, an option of `required` that is missing, one that needs a plan without
// one, and an --out that is there already without --force. `usage`: the verb's, for messages.
TrainConfig read_checkpoint_options(const cxxopts::ParseResult& options, std::initializer_list<const char*> required,
                                    const std::string& usage);

// Loads the model that `config` names, in Float mode with BF16 numbers, lets `change` fill its slots, quantizes it as
// the plan says and writes the checkpoint config.out. `attach` stands for BaseModel::attach_fake_quant() unless it is
// empty.
void write_untrained_checkpoint(
    const TrainConfig& config, const std::function<void(const BaseModel& base, Gemma4Model& model)>& change,
    const std::function<FakeQuantSet(const BaseModel& base, Gemma4Model& model)>& attach = {});

}  // namespace qat
