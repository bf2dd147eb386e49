// torch.distributed's c10d with Gloo over TCP.
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "store/message.h"
#include "train/torch/peers.h"

namespace mkv::training {
namespace {

// Their messages go on with a stack trace.
Error c10d_error(const std::exception& error) {
  std::string message = error.what();
  message.resize(std::min(message.size(), message.find('\n')));
  return make_error(ErrorCode::io, message);
}

class GlooGroup : public ProcessGroup {
 public:
  explicit GlooGroup(c10::intrusive_ptr<c10d::ProcessGroupGloo> group) : group_(std::move(group)) {}

  Result<void> sum(Tensor& tensor) override {
    return done([&](std::vector<Tensor>& one) { return group_->allreduce(one); }, tensor);
  }
  Result<void> from_leader(Tensor& tensor) override {
    return done([&](std::vector<Tensor>& one) { return group_->broadcast(one); }, tensor);
  }

 private:
  template <class Start>
  static Result<void> done(const Start& start, Tensor& tensor) {
    try {
      std::vector<Tensor> one{tensor};
      start(one)->wait();
      return {};
    } catch (const std::exception& error) {
      return c10d_error(error);
    }
  }

  c10::intrusive_ptr<c10d::ProcessGroupGloo> group_;
};

struct Addresses {
  addrinfo* first = nullptr;
  ~Addresses() {
    if (first != nullptr) freeaddrinfo(first);
  }
};

// This machine's address on the way to rank 0, so that Gloo listens where the others can reach it.
// A connected datagram socket sends nothing, it only chooses a route.
Result<std::string> own_address(const PeerOptions& options) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  Addresses found;
  const int status = getaddrinfo(options.address.c_str(), std::to_string(options.port).c_str(),
                                 &hints, &found.first);
  if (status != 0) {
    return make_error(ErrorCode::not_found, concat("train: address ", printable(options.address),
                                                   ": ", gai_strerror(status)));
  }
  for (const addrinfo* each = found.first; each != nullptr; each = each->ai_next) {
    const int fd = socket(each->ai_family, SOCK_DGRAM, 0);
    if (fd < 0) continue;
    sockaddr_storage own{};
    socklen_t size = sizeof own;
    auto* address = reinterpret_cast<sockaddr*>(&own);
    char text[NI_MAXHOST];
    const bool known =
        connect(fd, each->ai_addr, each->ai_addrlen) == 0 && getsockname(fd, address, &size) == 0 &&
        getnameinfo(address, size, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0;
    close(fd);
    if (known) return std::string(text);
  }
  return make_error(ErrorCode::io,
                    concat("train: no route to rank 0 at ", printable(options.address)));
}

}  // namespace

Result<std::unique_ptr<ProcessGroup>> connect_processes(const PeerOptions& options) {
  MKV_ASSIGN(const std::string own, own_address(options));
  try {
    const std::chrono::milliseconds timeout(static_cast<int64_t>(options.timeout_seconds * 1e3));
    c10d::TCPStoreOptions store_options;
    store_options.port = static_cast<uint16_t>(options.port);
    store_options.isServer = options.rank == 0;
    store_options.numWorkers = options.world;
    store_options.timeout = timeout;
    const auto store = c10::make_intrusive<c10d::TCPStore>(options.address, store_options);
    const auto group_options = c10d::ProcessGroupGloo::Options::create(timeout);
    group_options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(own));
    group_options->threads = 1;  // one operation at a time
    return std::unique_ptr<ProcessGroup>(
        std::make_unique<GlooGroup>(c10::make_intrusive<c10d::ProcessGroupGloo>(
            store, static_cast<int>(options.rank), static_cast<int>(options.world),
            group_options)));
  } catch (const std::exception& error) {
    return in_context(concat("train: rank ", options.rank, " of ", options.world, " by way of ",
                             options.address, ":", options.port),
                      c10d_error(error));
  }
}

}  // namespace mkv::training
