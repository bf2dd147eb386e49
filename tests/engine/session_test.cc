#include "engine/session.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "engine/sample_sequences.h"
#include "model/golden.h"
#include "text/utf8.h"

namespace mkv {
namespace {

using ::testing::HasSubstr;

class SessionTest : public ::testing::TestWithParam<std::string> {
 protected:
  SessionTest()
      : model_(golden::load(golden::gguf_of(GetParam()))),
        golden_(golden::read_logits(GetParam())),
        workers_(2) {}

  Session session(size_t capacity = 256) {
    return Session(model_, model_.exact_cache(capacity), workers_);
  }
  Request greedy(size_t max_tokens) const {
    Request request;
    request.prompt = golden_.prompt_ids;
    request.max_tokens = max_tokens;
    request.sampling = SamplingOptions::greedy();
    return request;
  }
  Completion generate(Session& session, const Request& request, const TokenSink& sink = {}) {
    auto completion = session.generate(request, sink);
    EXPECT_TRUE(completion) << completion.error().message;
    return std::move(completion).value();
  }

  Model model_;
  golden::Logits golden_;
  Workers workers_;
};

TEST_P(SessionTest, GreedyTokensAreThoseOfTransformers) {
  Session s = session();
  const Completion completion = generate(s, greedy(golden_.greedy_ids.size()));
  const auto& ends = model_.tokenizer().special().end_of_generation;
  const auto end = std::ranges::find_first_of(golden_.greedy_ids, ends);
  std::vector<TokenId> expected(golden_.greedy_ids.begin(), end);
  if (end != golden_.greedy_ids.end()) expected.push_back(*end);
  EXPECT_EQ(completion.tokens, expected);
  EXPECT_EQ(completion.timings.prompt_tokens, golden_.prompt_ids.size());
  EXPECT_EQ(completion.timings.generated_tokens, expected.size());
}

TEST_P(SessionTest, StreamedTextIsTheText) {
  Session s = session();
  Request request = greedy(40);
  request.sampling = SamplingOptions::unbiased(11);  // any bytes, most of them not UTF-8
  std::string streamed;
  size_t events = 0;
  const Completion completion = generate(s, request, [&](const TokenEvent& event) {
    EXPECT_TRUE(is_valid_utf8(event.text));
    streamed += event.text;
    ++events;
    return true;
  });
  EXPECT_EQ(streamed, completion.text);
  EXPECT_EQ(events, completion.tokens.size());
  std::string bytes;
  for (TokenId token : completion.tokens) bytes += model_.tokenizer().decode(token, false);
  EXPECT_EQ(completion.text, replace_invalid_utf8(bytes));
}

TEST_P(SessionTest, StopStringsThatSpanTokens) {
  Session s = session();
  const Completion whole = generate(s, greedy(20));
  ASSERT_GT(whole.text.size(), 8u);
  for (size_t at = 1; at + 4 < whole.text.size(); at += 3) {
    if (!is_valid_utf8(whole.text.substr(at, 4))) continue;
    Request request = greedy(20);
    request.stop = {"\x01never", whole.text.substr(at, 4)};
    std::string streamed;
    const Completion cut = generate(s, request, [&](const TokenEvent& event) {
      streamed += event.text;
      return true;
    });
    EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(request.stop[1])));
    EXPECT_EQ(streamed, cut.text);
    EXPECT_EQ(cut.finish_reason, FinishReason::stop);
    EXPECT_LE(cut.tokens.size(), whole.tokens.size());
  }
}

TEST_P(SessionTest, AContinuedConversationIsAsOneFromTheStart) {
  Session s = session(), fresh = session();
  const Completion first = generate(s, greedy(6));
  Request request = greedy(8);
  request.prompt.insert(request.prompt.end(), first.tokens.begin(), first.tokens.end());
  for (TokenId token : {11, 12, 13}) request.prompt.push_back(token);
  const Completion again = generate(s, request);
  const Completion direct = generate(fresh, request);
  EXPECT_EQ(again.tokens, direct.tokens);
  EXPECT_EQ(direct.timings.reused_tokens, 0u);
  // The last token was sampled but never read.
  EXPECT_EQ(again.timings.reused_tokens, golden_.prompt_ids.size() + first.tokens.size() - 1);

  const Completion other = generate(s, greedy(6));  // does not go on: from the start
  EXPECT_EQ(other.timings.reused_tokens, 0u);
  EXPECT_EQ(other.tokens, first.tokens);
}

TEST_P(SessionTest, ThePromptItselfMayBeAskedAgain) {
  Session s = session();
  const Completion none = generate(s, greedy(0));
  EXPECT_TRUE(none.tokens.empty());
  EXPECT_EQ(none.finish_reason, FinishReason::length);
  const Completion again = generate(s, greedy(5));
  EXPECT_EQ(again.timings.reused_tokens, golden_.prompt_ids.size());
  Session fresh = session();
  EXPECT_EQ(again.tokens, generate(fresh, greedy(5)).tokens);
}

TEST_P(SessionTest, TheContextEnds) {
  const size_t prompt = golden_.prompt_ids.size();
  Session small = session(prompt - 1);
  const auto refused = small.generate(greedy(5), {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::capacity);
  EXPECT_THAT(refused.error().message, HasSubstr(std::to_string(prompt) + " tokens"));
  EXPECT_THAT(refused.error().message, HasSubstr(std::to_string(prompt - 1)));

  Session exact = session(prompt);
  EXPECT_EQ(generate(exact, greedy(5)).tokens.size(), 1u);
  Session s = session(prompt + 2);
  const Completion cut = generate(s, greedy(50));
  EXPECT_EQ(cut.tokens.size(), 3u);  // the last one needs no room
  EXPECT_EQ(cut.finish_reason, FinishReason::length);
}

TEST_P(SessionTest, SinksAndCallersCanStop) {
  Session s = session();
  size_t calls = 0;
  const Completion cut = generate(s, greedy(20), [&](const TokenEvent&) { return ++calls < 3; });
  EXPECT_EQ(cut.finish_reason, FinishReason::cancelled);
  EXPECT_EQ(cut.tokens.size(), 3u);
  Request request = greedy(20);
  request.cancelled = [] { return true; };
  request.prompt[0] = 5;
  const Completion never = generate(s, request);
  EXPECT_EQ(never.finish_reason, FinishReason::cancelled);
  EXPECT_TRUE(never.tokens.empty());
}

TEST_P(SessionTest, BadRequestsAreErrorsAndChangeNothing) {
  Session s = session();
  generate(s, greedy(3));
  const size_t length = s.cache().length();
  Request empty = greedy(3), token = greedy(3), options = greedy(3);
  empty.prompt.clear();
  token.prompt.push_back(384);
  options.sampling.top_p = 7;
  for (const Request& request : {empty, token, options}) EXPECT_FALSE(s.generate(request, {}));
  EXPECT_EQ(s.cache().length(), length);
}

TEST_P(SessionTest, PrefillInPiecesEqualsOneForward) {
  std::vector<TokenId> tokens;
  while (tokens.size() < kPrefillChunk + 50) {
    tokens.insert(tokens.end(), golden_.ids.begin(), golden_.ids.end());
  }
  // In float32: keys that differ in their last bit may be rounded to different f16.
  KvCache a = model_.exact_cache(1024, {.exact = DType::f32}),
          b = model_.exact_cache(1024, {.exact = DType::f32});
  PrefillScratch scratch;
  std::vector<float> last(model_.config().hidden_size);
  ASSERT_TRUE(prefill(model_, {tokens, &a}, last, scratch, workers_));
  EXPECT_EQ(a.length(), tokens.size());
  const SequenceSlice slice{tokens, &b};
  ASSERT_TRUE(model_.forward({&slice, 1}, scratch.hidden, scratch.model, workers_));
  EXPECT_LT(golden::relative_error(last, scratch.hidden.row(tokens.size() - 1)), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Models, SessionTest, ::testing::ValuesIn(golden::kNames),
                         [](const auto& test) { return test.param; });

TEST(SampleSequencesTest, SeededAndOfTheModel) {
  const Model model = golden::load(golden::gguf_of("llama3"));
  Workers one(1), two(2);
  const SequenceOptions options{.sequences = 5, .tokens_per_sequence = 40, .seed = 9};
  const auto a = sample_sequences(model, options, one);
  const auto b = sample_sequences(model, options, two);
  ASSERT_TRUE(a && b);
  EXPECT_EQ(*a, *b);
  ASSERT_EQ(a->size(), 5u);
  for (const auto& sequence : *a) {
    EXPECT_EQ(sequence.size(), 40u);
    EXPECT_EQ(sequence.front(), *model.tokenizer().special().bos);
  }
  EXPECT_NE((*a)[0], (*a)[1]);
  // The model finds its own text likelier than random text.
  auto nll = [&](const std::vector<TokenId>& tokens) {
    const Matrix<float> logits = golden::run(model, tokens, tokens.size());
    double sum = 0;
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      double total = 0;
      for (float logit : logits.row(i)) total += std::exp(static_cast<double>(logit));
      sum +=
          std::log(total) - static_cast<double>(logits.at(i, static_cast<size_t>(tokens[i + 1])));
    }
    return sum;
  };
  std::vector<TokenId> random;
  Rng rng(1);
  for (int i = 0; i < 40; ++i) random.push_back(static_cast<TokenId>(rng.below(384)));
  for (const auto& sequence : *a) EXPECT_LT(nll(sequence), nll(random));
}

TEST(SampleSequencesTest, SizesOutOfRangeAreErrors) {
  const Model model = golden::load(golden::gguf_of("llama"));
  Workers workers(1);
  for (const SequenceOptions& options :
       {SequenceOptions{.sequences = 0}, SequenceOptions{.tokens_per_sequence = 0},
        SequenceOptions{.sequences = 1, .tokens_per_sequence = 513}}) {
    EXPECT_FALSE(sample_sequences(model, options, workers));
  }
}

}  // namespace
}  // namespace mkv
