#include "cli/peers.h"

#include "cli/options.h"

namespace mkv::cli {

void declare_peers(CLI::App& app, PeerOptions& options) {
  app.add_option("--master-address", options.address, "Where the process of rank 0 is found")
      ->envname("MASTER_ADDR");
  add_count(app, "--master-port", options.port, "Port of the process of rank 0")
      ->envname("MASTER_PORT")
      ->check(CLI::Range(1, 65535));
  add_count(app, "--rank", options.rank, "Of this process; 0 reads and writes all files")
      ->envname("RANK");
  add_count(app, "--world-size", options.world, "Processes that share the run")
      ->envname("WORLD_SIZE")
      ->check(CLI::PositiveNumber);
  app.add_option("--peer-timeout", options.timeout_seconds,
                 "Seconds without a word after which a process counts as lost")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
}

}  // namespace mkv::cli
