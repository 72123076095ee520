// Vercel's AI SDK with its provider for servers like this one.
import assert from "node:assert/strict";
import { test } from "node:test";

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, embedMany, generateText, isStepCount, streamText, tool } from "ai";
import { z } from "zod";

import { WORDS, only, url } from "./server.ts";

const smmf = createOpenAICompatible({
  name: "smmf",
  baseURL: url,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const Weather = z.object({ city: z.string(), days: z.number().int() });
const asked = { model: smmf("words"), prompt: "hi", maxRetries: 0 };
const thinks = { ...asked, model: smmf("thinker"), prompt: "<think>So it is.</think>Three." };
const weather = tool({ inputSchema: Weather, execute: async () => "sunny" });
const loop = { ...asked, tools: { weather }, stopWhen: isStepCount(4) };

test("text, whole and streamed", async () => {
  const whole = await generateText(asked);
  const stream = streamText(asked);
  let text = "";
  for await (const part of stream.textStream) text += part;
  assert.deepEqual([whole.text, text], [WORDS, WORDS]);
  assert.deepEqual([whole.finishReason, await stream.finishReason], ["stop", "stop"]);
  assert.equal((await stream.usage).totalTokens, whole.usage.totalTokens);
});

test("a loop of tools, whole and streamed", async () => {
  const whole = await generateText(loop);
  const stream = streamText(loop);
  for (const steps of [whole.steps, await stream.steps]) {
    assert.equal(steps.length, 2);
    Weather.parse(only(steps[0]!.toolCalls).input);
    assert.equal(steps[1]!.text, WORDS);
  }
});

test("an object of a schema", async () => {
  const { output } = await generateText({ ...asked, output: Output.object({ schema: Weather }) });
  Weather.parse(output);
});

test("thoughts", async () => {
  const whole = await generateText(thinks);
  assert.deepEqual([whole.text, whole.reasoningText], ["Three.", "So it is."]);
  const stream = streamText(thinks);
  assert.deepEqual([await stream.text, await stream.reasoningText], ["Three.", "So it is."]);
});

test("embeddings", async () => {
  const model = smmf.embeddingModel("near");
  const { embeddings } = await embedMany({ model, values: ["a", "b"] });
  assert.deepEqual(embeddings.map((vector) => vector.length), [32, 32]);
});
