// Data-parallel training: every rank computes its share of a step's windows and of the held-out
// measurements, and sums make all ranks the same again. One process is a world of one, where a sum
// is what it was.
#pragma once

#include <torch/torch.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "train/peer_options.h"
#include "train/run_state.h"

namespace mkv::training {

using torch::Tensor;

// What c10d does for us. Tensors are on the CPU and contiguous.
class ProcessGroup {
 public:
  virtual ~ProcessGroup() = default;
  virtual Result<void> sum(Tensor& tensor) = 0;          // over ranks, in place
  virtual Result<void> from_leader(Tensor& tensor) = 0;  // rank 0's values, in place
};

// Waits for all ranks. In src/train/torch/gloo, or, for a LibTorch whose c10d cannot be compiled
// against, an error in src/train/torch/no_gloo. Throws nothing.
Result<std::unique_ptr<ProcessGroup>> connect_processes(const PeerOptions& options);

// Every function is called by all ranks, in the same order. Errors: a lost peer, in c10d's words.
// Belongs to one thread.
class Peers {
 public:
  static Result<Peers> connect(const PeerOptions& options);

  bool leads() const { return options_.rank == 0; }
  size_t world() const { return options_.world; }
  // Whether the i-th of a list of equal works is this rank's.
  bool takes(size_t i) const { return i % options_.world == options_.rank; }

  Result<void> sum(std::vector<Tensor>& tensors);  // float32, of any device
  Result<void> sum(std::vector<double>& values);
  // The losses of `works` equal works, of which each rank brings those that it takes, in order.
  // Returns whether rank 0 asks to stop.
  Result<bool> gather_losses(size_t works, bool stop, std::vector<double>& kl,
                             std::vector<double>& cross_entropy);
  // Rank 0's bytes, at every rank.
  Result<std::vector<std::byte>> from_leader(std::vector<std::byte> bytes);
  // An error that names what differs from rank 0's run; at rank 0, that another's differs.
  Result<void> check_same(const RunIdentity& identity);

 private:
  Peers(const PeerOptions& options, std::unique_ptr<ProcessGroup> group)
      : options_(options), group_(std::move(group)) {}
  Error lost(Error error) const;

  PeerOptions options_;
  std::unique_ptr<ProcessGroup> group_;  // null: a world of one
};

// A checkpoint, read by rank 0 for all: the others may be where its file is not. Nothing: no file,
// or none is asked for.
Result<std::optional<RunState>> read_shared_run_state(const std::filesystem::path& path,
                                                      const RunIdentity& identity, Peers& peers);

}  // namespace mkv::training
