// The module's boundary: what torch throws becomes an error here.
#include "train/train.h"

#include <algorithm>
#include <exception>
#include <string>

#include "train/torch/trainer.h"

namespace mkv {
namespace {

// Torch's messages go on with a stack trace.
Error torch_error(const std::exception& error) {
  std::string message = error.what();
  message.resize(std::min(message.size(), message.find('\n')));
  return make_error(ErrorCode::unsupported, "train: " + message);
}

}  // namespace

Result<void> check_training_built() { return {}; }

Result<TrainReport> train_nest(const Model& model, std::span<const std::vector<TokenId>> sequences,
                               const Windows& held_out, const TrainOptions& options, Nest& nest,
                               Workers& workers) {
  try {
    MKV_ASSIGN(training::Trainer trainer,
               training::Trainer::create({model, sequences, held_out, options, workers}, nest));
    return trainer.run();
  } catch (const std::exception& error) {
    return torch_error(error);
  }
}

}  // namespace mkv
