#include "train/torch/peers.h"

#include <algorithm>
#include <cstring>

#include "store/mapped_file.h"
#include "store/message.h"

namespace mkv::training {

Result<Peers> Peers::connect(const PeerOptions& options) {
  const auto invalid = [](const std::string& message) {
    return make_error(ErrorCode::invalid_argument, "train: " + message);
  };
  if (options.world == 0 || options.rank >= options.world) {
    return invalid(concat("rank ", options.rank, " of a world of ", options.world));
  }
  if (options.world == 1) return Peers(options, nullptr);
  if (options.address.empty()) {
    return invalid(concat("a world of ", options.world, " needs the address of rank 0"));
  }
  if (options.port == 0 || options.port > 65535) {
    return invalid(concat("port ", options.port, ", expected 1 to 65535"));
  }
  auto group = connect_processes(options);
  if (!group) return std::move(group).error();
  return Peers(options, std::move(*group));
}

Error Peers::lost(Error error) const {
  return in_context(
      concat("train: rank ", options_.rank, " of ", options_.world, ": a peer is lost"),
      std::move(error));
}

Result<void> Peers::sum(std::vector<Tensor>& tensors) {
  if (!group_) return {};
  std::vector<Tensor> flat;
  for (const Tensor& tensor : tensors) flat.push_back(tensor.reshape(-1).to(torch::kCPU));
  Tensor all = torch::cat(flat);
  if (auto done = group_->sum(all); !done) return lost(std::move(done).error());
  int64_t at = 0;
  for (Tensor& tensor : tensors) {
    const Tensor part = all.slice(0, at, at + tensor.numel());
    at += tensor.numel();
    tensor = part.view(tensor.sizes()).to(tensor.device(), tensor.scalar_type(), false, true);
  }
  return {};
}

Result<void> Peers::sum(std::vector<double>& values) {
  if (!group_ || values.empty()) return {};
  Tensor all = torch::tensor(at::ArrayRef<double>(values), torch::kDouble);
  if (auto done = group_->sum(all); !done) return lost(std::move(done).error());
  std::copy_n(all.data_ptr<double>(), values.size(), values.begin());
  return {};
}

Result<bool> Peers::gather_losses(size_t works, bool stop, std::vector<double>& kl,
                                  std::vector<double>& cross_entropy) {
  std::vector<double> figures(2 * works + 1);
  for (size_t i = 0, mine = 0; i < works; ++i) {
    if (!takes(i)) continue;
    figures[i] = kl[mine];
    figures[works + i] = cross_entropy[mine++];
  }
  figures.back() = leads() && stop ? 1.0 : 0.0;
  MKV_TRY(sum(figures));
  const auto middle = figures.begin() + static_cast<std::ptrdiff_t>(works);
  kl.assign(figures.begin(), middle);
  cross_entropy.assign(middle, figures.end() - 1);
  return figures.back() > 0;
}

Result<std::vector<std::byte>> Peers::from_leader(std::vector<std::byte> bytes) {
  if (!group_) return bytes;
  Tensor size = torch::tensor(static_cast<int64_t>(bytes.size()), torch::kLong).view({1});
  if (auto done = group_->from_leader(size); !done) return lost(std::move(done).error());
  bytes.resize(static_cast<size_t>(size.item<int64_t>()));
  if (bytes.empty()) return bytes;
  Tensor all = torch::empty({size.item<int64_t>()}, torch::kUInt8);
  std::memcpy(all.data_ptr(), bytes.data(), bytes.size());
  if (auto done = group_->from_leader(all); !done) return lost(std::move(done).error());
  std::memcpy(bytes.data(), all.data_ptr(), bytes.size());
  return bytes;
}

Result<void> Peers::check_same(const RunIdentity& identity) {
  if (!group_) return {};
  MKV_ASSIGN(const std::string text, dump_json(Json(identity)));
  const auto own = std::as_bytes(std::span(text));
  MKV_ASSIGN(const auto theirs, from_leader({own.begin(), own.end()}));
  MKV_ASSIGN(const Json json,
             parse_json({reinterpret_cast<const char*>(theirs.data()), theirs.size()}, "rank 0"));
  std::string difference;
  for (const auto& [name, value] : identity) {
    const auto there = json.find(name);
    if (there != json.end() && *there == Json(value)) continue;
    difference = concat("another run than rank 0's: ", name, " is ",
                        there == json.end() ? "missing" : there->dump(), " there, ",
                        Json(value).dump(), " here");
    break;
  }
  std::vector<double> different{difference.empty() ? 0.0 : 1.0};
  MKV_TRY(sum(different));
  if (different[0] == 0.0) return {};
  if (difference.empty()) {
    difference = concat(static_cast<size_t>(different[0]), " of the others have another run");
  }
  return make_error(ErrorCode::invalid_argument, concat("train: rank ", options_.rank, " of ",
                                                        options_.world, ": ", difference));
}

Result<std::optional<RunState>> read_shared_run_state(const std::filesystem::path& path,
                                                      const RunIdentity& identity, Peers& peers) {
  std::vector<std::byte> bytes;
  std::error_code ignored;
  if (peers.leads() && !path.empty() && std::filesystem::exists(path, ignored)) {
    MKV_ASSIGN(const MappedFile file, MappedFile::open(path));
    bytes.assign(file.bytes().begin(), file.bytes().end());
  }
  MKV_ASSIGN(bytes, peers.from_leader(std::move(bytes)));
  if (bytes.empty()) return std::optional<RunState>();
  MKV_ASSIGN(RunState state, parse_run_state(bytes, path.string(), identity));
  return std::optional(std::move(state));
}

}  // namespace mkv::training
