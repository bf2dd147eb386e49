#include "engine/prefill.h"

#include <algorithm>

namespace mkv {

Result<void> prefill(const Model& model, SequenceSlice slice, std::span<float> last_hidden,
                     PrefillScratch& scratch, Workers& workers) {
  MKV_CHECK(slice.cache != nullptr && !slice.tokens.empty());
  MKV_TRY(model.check({&slice, 1}));
  for (size_t at = 0; at < slice.tokens.size(); at += kPrefillChunk) {
    const size_t count = std::min(kPrefillChunk, slice.tokens.size() - at);
    const SequenceSlice chunk{
        .tokens = slice.tokens.subspan(at, count), .cache = slice.cache, .last_only = true};
    MKV_TRY(model.forward({&chunk, 1}, scratch.hidden, scratch.model, workers));
  }
  std::ranges::copy(scratch.hidden.row(scratch.hidden.rows() - 1), last_hidden.begin());
  return {};
}

}  // namespace mkv
