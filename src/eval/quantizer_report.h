// What quantization does to a model in training, as a section of the run's report.
#pragma once

#include "eval/html_report.h"
#include "eval/run_figures.h"

namespace qat {

// How many codes change between evaluations; signal to noise of every quantizer over the layers; the worst ones.
ReportSection quantization_section(const RunFigures& figures);

}  // namespace qat
