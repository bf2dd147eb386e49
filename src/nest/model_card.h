// The model card (README.md) of a saved nest, in the form that Hugging Face's hub reads.
#pragma once

#include <string>

#include "nest/nest.h"

namespace mkv {

std::string model_card(const Nest& nest);

}  // namespace mkv
