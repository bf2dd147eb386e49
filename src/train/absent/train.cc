// Stands in for the training module in a program that was built without it.
#include "train/train.h"

#include "train/sft.h"

namespace mkv {

Result<void> check_training_built() {
  return make_error(ErrorCode::unsupported,
                    "this program was built without the training module; build one that has it: "
                    "scripts/install_deps.sh --train && cmake --preset train && "
                    "cmake --build --preset train");
}

Result<TrainReport> train_nest(const Model&, std::span<const std::vector<TokenId>>, const Windows&,
                               const TrainOptions&, Nest&, Workers&) {
  return check_training_built().error();
}

Result<SftReport> fine_tune(const Model&, std::span<const ScoredTokens>,
                            std::span<const ScoredTokens>, const SftOptions&, Nest*, Workers&) {
  return check_training_built().error();
}

}  // namespace mkv
