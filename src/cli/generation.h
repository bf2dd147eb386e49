// What run and chat share: text as it comes, and what an answer took.
#pragma once

#include <string>

#include "cli/output.h"
#include "engine/session.h"

namespace mkv::cli {

// Writes each piece of text to stdout at once; stops when nobody reads it any more.
TokenSink print_as_it_comes();

OrderedJson completion_json(const Completion& completion, const KvCache& cache);

// "12 tokens of prompt at 830.1/s, 64 tokens at 121.5/s, stop, KV cache 1.2 MB"
std::string timing_line(const Completion& completion, const KvCache& cache);

}  // namespace mkv::cli
