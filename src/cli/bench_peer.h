// Speed of a peer: runs the llama-bench of a build of llama.cpp and reads its report.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"
#include "eval/speed.h"

namespace mkv::cli {

// How a peer is run.
struct PeerMode {
  std::filesystem::path folder;  // holds llama-bench
  std::string kv_type;           // f16, q8_0, q4_0, as llama-bench names them
  bool flash_attention = true;
};

struct PeerRun {
  std::string model;  // GGUF file
  size_t threads = 1;
  BenchLengths lengths;
};

struct PeerSpeed {
  PeerMode mode;
  size_t depth = 0;
  Samples prefill, decode;  // tokens/s
};

// One repetition at speed.depth.
Result<void> measure_peer(const PeerRun& run, PeerSpeed& speed);

// What a program says on stdout; its stderr is dropped. An exit code other than 0 is an error.
Result<std::string> output_of(const std::vector<std::string>& command);

}  // namespace mkv::cli
