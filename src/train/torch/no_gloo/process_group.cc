// Stands in where LibTorch's c10d with Gloo cannot be compiled against.
#include "train/torch/peers.h"

namespace mkv::training {

Result<std::unique_ptr<ProcessGroup>> connect_processes(const PeerOptions& options) {
  return make_error(ErrorCode::unsupported,
                    "train: a world of " + std::to_string(options.world) +
                        " processes: this program was built without c10d's Gloo; install "
                        "libgloo-dev beside a LibTorch that has it, and build again");
}

}  // namespace mkv::training
