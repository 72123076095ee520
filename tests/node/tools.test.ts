import assert from "node:assert/strict";
import { test } from "node:test";

import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

import { client, only, user } from "./server.ts";

const Weather = z.object({ city: z.string(), days: z.number().int() });
const Add = z.object({ a: z.number(), b: z.number() });
const tools = [
  zodFunction({ name: "get_weather", parameters: Weather }),
  zodFunction({ name: "add", parameters: Add }),
];
const request = { model: "words", messages: user("How is the weather?"), tools };

test("tools are called, whole and streamed alike", async () => {
  const parsed = await client.chat.completions.parse(request);
  const streamed = await client.chat.completions.stream(request).finalChatCompletion();
  for (const answer of [parsed, streamed]) {
    const choice = only(answer.choices);
    assert.equal(choice.finish_reason, "tool_calls");
    assert.ok(!choice.message.content);
    const call = only(choice.message.tool_calls ?? []);
    assert.ok(call.type === "function");
    assert.match(call.id, /^call_/);
    assert.equal(call.function.name, "get_weather");
    Weather.parse(call.function.parsed_arguments);
  }
});

test("the choice of a tool", async () => {
  const none = await client.chat.completions.create({ ...request, tool_choice: "none" });
  assert.equal(only(none.choices).message.tool_calls, undefined);
  const required = await client.chat.completions.create({ ...request, tool_choice: "required" });
  assert.equal(only(required.choices).message.tool_calls?.length, 1);
  const named = await client.chat.completions.create({
    ...request,
    tool_choice: { type: "function", function: { name: "add" } },
    parallel_tool_calls: false,
  });
  const call = only(only(named.choices).message.tool_calls ?? []);
  assert.ok(call.type === "function");
  Add.parse(JSON.parse(call.function.arguments));
});

for (const stream of [false, true]) {
  test(`runTools calls and answers until the model is content (stream: ${stream})`, async () => {
    const asked: z.infer<typeof Weather>[] = [];
    const tool = zodFunction({
      name: "get_weather",
      parameters: Weather,
      function: (given) => {
        asked.push(given);
        return JSON.stringify({ sky: "clear" });
      },
    });
    const body = { model: "words", messages: user("How is the weather?"), tools: [tool] };
    const runner = stream
      ? client.chat.completions.runTools({ ...body, stream: true })
      : client.chat.completions.runTools(body);
    assert.match((await runner.finalContent()) ?? "", /quick brown fox/);
    assert.equal(asked.length, 1);
    const roles = runner.messages.map((message) => message.role);
    assert.deepEqual(roles, ["user", "assistant", "tool", "assistant"]);
  });
}

test("a schema is answered by an instance of it", async () => {
  const Event = z.object({
    name: z.string(),
    day: z.enum(["monday", "friday"]),
    guests: z.array(z.object({ name: z.string(), age: z.number().int().nullable() })),
  });
  const format = { response_format: zodResponseFormat(Event, "event") };
  const asked = { model: "words", messages: user("Which event?"), ...format };
  const whole = await client.chat.completions.parse(asked);
  const streamed = await client.chat.completions.stream(asked).finalChatCompletion();
  for (const answer of [whole, streamed]) Event.parse(only(answer.choices).message.parsed);
});

test("a real model keeps to a schema", async () => {
  const Person = z.object({ name: z.string(), age: z.number().int() });
  const answer = await client.chat.completions.parse({
    model: "demo",
    messages: user("Answer as JSON with keys name and age: Ada is 36"),
    response_format: zodResponseFormat(Person, "person"),
    temperature: 0,
    max_tokens: 100,
  });
  assert.deepEqual(only(answer.choices).message.parsed, { name: "Ada", age: 36 });
});

test("any JSON object", async () => {
  const answer = await client.chat.completions.create({
    ...request,
    tools: [],
    response_format: { type: "json_object" },
  });
  JSON.parse(only(answer.choices).message.content!);
});
