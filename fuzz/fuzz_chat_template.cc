// Chat templates from hostile files: they must end, within their limits, in a text or an error.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  const mkv::ChatLimits limits{
      .template_bytes = 64 << 10, .output_bytes = 1 << 20, .heap_bytes = 4 << 20, .steps = 100'000};
  const auto chat =
      mkv::ChatTemplate::parse(std::string(reinterpret_cast<const char*>(bytes), size), limits);
  if (!chat) return 0;
  mkv::ChatMessage call{"assistant", std::nullopt};
  call.extra = {{"tool_calls", {{{"name", "f"}, {"arguments", {{"x", 1.5}}}}}}};
  const mkv::ChatMessage messages[] = {{"system", "be brief"}, {"user", "h\xC3\xA9llo"}, call};
  const auto text = chat->render(messages, {.bos = "<s>", .eos = "</s>"});
  if (text) MKV_CHECK(text->size() <= limits.output_bytes);
  if (!text) MKV_CHECK(text.error().message.starts_with("chat template"));
  return 0;
}
