import assert from "node:assert/strict";
import { test } from "node:test";

import { WORDS, client, collected, only, user } from "./server.ts";

const messages = user("Tell me a story.");

test("a whole answer", async () => {
  const answer = await client.chat.completions.create({ model: "words", messages, temperature: 0 });
  const choice = only(answer.choices);
  assert.equal(choice.message.content, WORDS);
  assert.equal(choice.message.role, "assistant");
  assert.equal(choice.message.refusal, null);
  assert.equal(choice.finish_reason, "stop");
  assert.equal(answer.object, "chat.completion");
  assert.equal(answer.usage?.completion_tokens, 5);
  assert.ok(answer._request_id);
});

test("every option at once", async () => {
  const answer = await client.chat.completions.create({
    model: "words",
    messages: [
      { role: "developer", content: [{ type: "text", text: "Be brief." }] },
      { role: "assistant", content: "Yes." },
      ...messages,
    ],
    n: 2,
    max_completion_tokens: 3,
    temperature: 0.5,
    top_p: 0.9,
    frequency_penalty: 0.1,
    presence_penalty: -0.1,
    logit_bias: { "5": -100 },
    logprobs: true,
    top_logprobs: 2,
    seed: 7,
    stop: ["zebra"],
    user: "a",
    metadata: { a: "b" },
    store: false,
    service_tier: "auto",
    reasoning_effort: "low",
    parallel_tool_calls: true,
    response_format: { type: "text" },
    modalities: ["text"],
    verbosity: "low",
    prompt_cache_key: "k",
    safety_identifier: "s",
  });
  assert.deepEqual(answer.choices.map((c) => c.finish_reason), ["length", "length"]);
  for (const choice of answer.choices) {
    const tokens = choice.logprobs?.content ?? [];
    assert.equal(tokens.map((t) => t.token).join(""), choice.message.content);
    assert.ok(tokens.every((t) => t.top_logprobs.length === 2 && t.logprob <= 0));
  }
  assert.equal(answer.usage?.completion_tokens, 6);
});

test("a stream", async () => {
  const stream = await client.chat.completions.create({
    model: "words",
    messages,
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks = await collected(stream);
  const last = chunks.pop()!;
  assert.deepEqual(last.choices, []);
  assert.equal(last.usage?.completion_tokens, 5);
  assert.equal(new Set(chunks.map((c) => c.id)).size, 1);
  const choices = chunks.map((c) => only(c.choices));
  assert.equal(choices[0]!.delta.role, "assistant");
  assert.equal(choices.map((c) => c.delta.content ?? "").join(""), WORDS);
  assert.equal(choices.at(-1)!.finish_reason, "stop");
});

test("the helper's events and its final completion", async () => {
  const deltas: string[] = [];
  const stream = client.chat.completions
    .stream({ model: "words", messages, n: 1 })
    .on("content", (delta) => deltas.push(delta));
  const answer = await stream.finalChatCompletion();
  assert.equal(only(answer.choices).message.content, WORDS);
  assert.equal(deltas.join(""), WORDS);
});

test("a stream that is left gives its slot back", async () => {
  for (let round = 0; round < 20; round++) {
    const stream = await client.chat.completions.create({ model: "words", messages, stream: true });
    for await (const _ of stream) break;
  }
  const answer = await client.chat.completions.create({ model: "words", messages });
  assert.equal(only(answer.choices).message.content, WORDS);
});

test("many at once, in every alphabet", async () => {
  const said = 'Ünï "quoted" \\ 漢字 🦊\n';
  const answers = Array.from({ length: 20 }, async () => {
    const request = { model: "parrot", messages: user(said), stream: true as const };
    const chunks = await collected(await client.chat.completions.create(request));
    return chunks.map((c) => c.choices[0]?.delta.content ?? "").join("");
  });
  assert.deepEqual(new Set(await Promise.all(answers)), new Set([said]));
});

test("thoughts come apart from the answer", async () => {
  type Thought = { content?: string | null; reasoning_content?: string; reasoning?: string };
  const request = { model: "thinker", messages: user("<think>So it is.</think>Three.") };
  const whole: Thought = only((await client.chat.completions.create(request)).choices).message;
  assert.deepEqual(
    [whole.content, whole.reasoning_content, whole.reasoning],
    ["Three.", "So it is.", "So it is."],
  );
  const stream = await client.chat.completions.create({ ...request, stream: true });
  const deltas: Thought[] = (await collected(stream)).map((c) => only(c.choices).delta);
  assert.equal(deltas.map((d) => d.reasoning_content ?? "").join(""), "So it is.");
  assert.equal(deltas.map((d) => d.content ?? "").join(""), "Three.");
});
