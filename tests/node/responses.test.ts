import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";
import { zodResponsesFunction, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

import { WORDS, client, collected, only, user } from "./server.ts";

const Weather = z.object({ city: z.string(), days: z.number().int() });
const tools = [zodResponsesFunction({ name: "get_weather", parameters: Weather })];
const request = { model: "words", input: "How is the weather?" };

test("a whole answer", async () => {
  const answer = await client.responses.create({ ...request, instructions: "Be brief." });
  assert.equal(answer.output_text, WORDS);
  assert.deepEqual([answer.object, answer.status], ["response", "completed"]);
  assert.deepEqual([answer.error, answer.incomplete_details], [null, null]);
  assert.equal(answer.usage?.output_tokens, 5);
  assert.equal(answer.usage?.output_tokens_details.reasoning_tokens, 0);
});

test("an answer that is cut is incomplete", async () => {
  const asked = { model: "parrot", input: "a ".repeat(99), max_output_tokens: 16 };
  const answer = await client.responses.create(asked);
  assert.equal(answer.status, "incomplete");
  assert.deepEqual(answer.incomplete_details, { reason: "max_output_tokens" });
});

test("the events of a stream", async () => {
  const events = await collected(await client.responses.create({ ...request, stream: true }));
  assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
  const types = events.map((event) => event.type);
  assert.deepEqual(types.slice(0, 2), ["response.created", "response.in_progress"]);
  const deltas = events.filter((event) => event.type === "response.output_text.delta");
  assert.equal(deltas.map((event) => event.delta).join(""), WORDS);
  const last = events.at(-1)!;
  assert.ok(last.type === "response.completed");
  assert.equal(last.response.usage?.output_tokens, 5);
});

test("the helper's final response", async () => {
  const stream = client.responses.stream(request);
  const answer = await stream.finalResponse();
  assert.equal(answer.output_text, WORDS);
});

test("tools are called, and told their results", async () => {
  const parsed = await client.responses.parse({ ...request, tools });
  const streamed = await client.responses.stream({ ...request, tools }).finalResponse();
  for (const answer of [parsed, streamed]) {
    const call = only(answer.output.filter((item) => item.type === "function_call"));
    assert.equal(call.name, "get_weather");
    Weather.parse(JSON.parse(call.arguments));
    const told = await client.responses.create({
      model: "words",
      tools,
      input: [
        ...user(request.input),
        { type: "function_call", call_id: call.call_id, name: call.name, arguments: call.arguments },
        { type: "function_call_output", call_id: call.call_id, output: "sunny" },
      ],
    });
    assert.equal(told.output_text, WORDS);
  }
});

test("a schema is answered by an instance of it", async () => {
  const answer = await client.responses.parse({
    ...request,
    text: { format: zodTextFormat(Weather, "weather") },
  });
  Weather.parse(answer.output_parsed);
});

test("thoughts are an item of their own", async () => {
  const input = user("<think>So it is.</think>Three.");
  const answer = await client.responses.create({ model: "thinker", input });
  assert.deepEqual(answer.output.map((item) => item.type), ["reasoning", "message"]);
  assert.equal(answer.output_text, "Three.");
});

test("errors are typed, and nothing is stored", async () => {
  const wrong = client.responses.create({ ...request, temperature: 3 });
  await assert.rejects(wrong, OpenAI.BadRequestError);
  const before = client.responses.create({ ...request, previous_response_id: "resp_1" });
  await assert.rejects(before, OpenAI.BadRequestError);
  await assert.rejects(client.responses.retrieve("resp_1"), OpenAI.NotFoundError);
});
