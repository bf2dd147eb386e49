// Which process of a training run this is, as torchrun and its like say it: by variables.
#pragma once

#include <CLI/CLI.hpp>

#include "train/peer_options.h"

namespace mkv::cli {

// Options that take their defaults from MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE.
void declare_peers(CLI::App& app, PeerOptions& options);

}  // namespace mkv::cli
