#include "cli/refit.h"

#include <map>
#include <string>
#include <utility>

#include "fit/fit_codes.h"
#include "fit/measure.h"
#include "store/message.h"

namespace mkv::cli {
namespace {

constexpr size_t kMeasuredOf = 5;  // one text in so many
constexpr size_t kMeasuredRungs = 12;

struct SplitTexts {
  std::vector<std::vector<TokenId>> fitted;
  Windows measured;
};

SplitTexts split_texts(std::vector<std::vector<TokenId>> texts, size_t context) {
  SplitTexts split;
  split.measured.context = context;
  for (size_t i = 0; i < texts.size(); ++i) {
    if (i % kMeasuredOf == 1) {
      split.measured.tokens.insert(split.measured.tokens.end(), texts[i].begin(), texts[i].end());
    } else {
      split.fitted.push_back(std::move(texts[i]));
    }
  }
  return split;
}

Result<Nest> refit(const Model& model, const CodeFitOptions& options, SplitTexts texts,
                   size_t threads) {
  if (texts.measured.tokens.empty()) {
    return make_error(ErrorCode::invalid_argument,
                      concat("a refit of ", texts.fitted.size(), " texts, 2 are the least"));
  }
  Workers workers(threads);
  MKV_ASSIGN(Nest nest, fit_code_nest(model, texts.fitted, options, {}, workers));
  MKV_TRY(
      measure_ladder(model, nest, texts.measured, {.rungs = kMeasuredRungs, .eval = {}}, workers));
  return nest;
}

}  // namespace

Result<std::function<Result<Nest>(std::vector<std::vector<TokenId>>)>> make_refit(
    const Model& model, const Nest& like, size_t context, size_t threads) {
  const NestConfig& config = like.config();
  if (config.slab_kind != SlabKind::code) {
    return make_error(ErrorCode::unsupported,
                      "--refit: the nest holds columns, only codes are refitted");
  }
  CodeFitOptions options;
  options.group_size = config.group_size;
  options.key_mean = config.key_mean;
  options.sinks = config.sinks;
  options.recent = config.recent;
  options.later_sinks = config.later_sinks;
  options.origin = {{"calibration", "served text"}};
  if (!model.config().name.empty()) options.origin["model"] = model.config().name;
  return std::function(
      [&model, options, context, threads](std::vector<std::vector<TokenId>> texts) {
        return refit(model, options, split_texts(std::move(texts), context), threads);
      });
}

}  // namespace mkv::cli
