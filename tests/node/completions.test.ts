import assert from "node:assert/strict";
import { test } from "node:test";

import { WORDS, client, collected, only } from "./server.ts";

test("prompts of every shape", async () => {
  for (const prompt of ["a", ["a", "b"], [1, 2, 3], [[1, 2], [3]]]) {
    const answer = await client.completions.create({ model: "words", prompt, max_tokens: 3 });
    const asked = typeof prompt === "string" || typeof prompt[0] === "number" ? 1 : 2;
    assert.deepEqual(answer.choices.map((c) => c.index), [...Array(asked).keys()]);
    assert.ok(answer.choices.every((c) => c.text === " the quick brown"));
    assert.ok(answer.choices.every((c) => c.finish_reason === "length"));
    assert.equal(answer.usage?.completion_tokens, 3 * asked);
  }
});

test("logprobs of the prompt and of what follows", async () => {
  const answer = await client.completions.create({
    model: "words",
    prompt: [5, 6],
    echo: true,
    logprobs: 2,
    max_tokens: 2,
  });
  const { text, logprobs } = only(answer.choices);
  assert.equal(logprobs?.tokens?.join(""), text);
  assert.equal(logprobs?.token_logprobs?.[0], null);
  assert.equal(logprobs?.text_offset?.length, 4);
  assert.ok(logprobs?.token_logprobs?.slice(1).every((value) => value <= 0));
});

test("a stream", async () => {
  const stream = await client.completions.create({
    model: "words",
    prompt: "a",
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks = await collected(stream);
  const last = chunks.pop()!;
  assert.deepEqual(last.choices, []);
  assert.equal(last.usage?.completion_tokens, 5);
  const choices = chunks.map((c) => only(c.choices));
  assert.equal(choices.map((c) => c.text).join(""), WORDS);
  assert.equal(choices.at(-1)!.finish_reason, "stop");
});
