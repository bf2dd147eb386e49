// The module's boundary: what torch throws becomes an error here.
#include "train/train.h"

#include <malloc.h>

#include <algorithm>
#include <exception>
#include <string>

#include "train/sft.h"
#include "train/torch/sft_trainer.h"
#include "train/torch/trainer.h"

namespace mkv {
namespace {

// Torch's messages go on with a stack trace.
Error torch_error(const std::exception& error) {
  std::string message = error.what();
  message.resize(std::min(message.size(), message.find('\n')));
  return make_error(ErrorCode::unsupported, "train: " + message);
}

// Tensors of some megabytes come and go all the time. By default each is mapped anew and its pages
// are cleared at first touch, a tenth of a step's time; kept in the heap they are used again.
void keep_freed_memory() {
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // the most that glibc takes
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
}

}  // namespace

Result<void> check_training_built() { return {}; }

Result<TrainReport> train_nest(const Model& model, std::span<const std::vector<TokenId>> sequences,
                               const Windows& held_out, const TrainOptions& options, Nest& nest,
                               Workers& workers) {
  const ModelConfig& config = model.config();
  if (config.layer_types.all().size() > 1 || config.hidden_activation != Activation::silu) {
    return make_error(ErrorCode::unsupported,
                      "train: found a model of the architecture " + config.architecture +
                          ", expected one whose layers are alike and gated by SiLU");
  }
  keep_freed_memory();
  try {
    MKV_ASSIGN(training::Trainer trainer,
               training::Trainer::create({model, sequences, held_out, options, workers}, nest));
    return trainer.run();
  } catch (const std::exception& error) {
    return torch_error(error);
  }
}

Result<SftReport> fine_tune(const Model& model, std::span<const ScoredTokens> examples,
                            std::span<const ScoredTokens> held_out, const SftOptions& options,
                            Nest* nest, Workers& workers) {
  keep_freed_memory();
  try {
    MKV_ASSIGN(training::SftTrainer trainer,
               training::SftTrainer::create({model, examples, held_out, options, workers}, nest));
    return trainer.run();
  } catch (const std::exception& error) {
    return torch_error(error);
  }
}

}  // namespace mkv
