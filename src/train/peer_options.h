// The processes of one training run, as torch.distributed's launchers describe them: each has a
// rank, and rank 0 is where the others find it. Every rank is given the same model, text and
// options; only rank 0 writes files.
#pragma once

#include <cstddef>
#include <string>

namespace mkv {

struct PeerOptions {
  std::string address;  // of rank 0 (MASTER_ADDR)
  size_t port = 29500;  // MASTER_PORT
  size_t rank = 0, world = 1;
  double timeout_seconds = 1800;  // without a word from a peer, after which it counts as lost
};

}  // namespace mkv
