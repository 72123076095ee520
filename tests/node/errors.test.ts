import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI, { APIError } from "openai";

import { client, collected, url, user } from "./server.ts";

const messages = user("hi");

async function caught(promise: Promise<unknown>): Promise<APIError> {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof APIError, String(error));
    return error;
  }
  throw new Error("nothing was thrown");
}

for (const stream of [false, true]) {
  const ask = (fields: object) =>
    client.chat.completions.create({ model: "words", messages, stream, ...fields });

  test(`a wrong value is a BadRequestError (stream: ${stream})`, async () => {
    const error = await caught(ask({ temperature: 3 }));
    assert.ok(error instanceof OpenAI.BadRequestError);
    const { status, code, param, type }: APIError = error;
    assert.deepEqual(
      [status, code, param, type],
      [400, "decimal_above_max_value", "temperature", "invalid_request_error"],
    );
    assert.ok(error.requestID);
  });

  test(`an unknown model is a NotFoundError (stream: ${stream})`, async () => {
    const error = await caught(ask({ model: "none" }));
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.deepEqual([error.code, error.param], ["model_not_found", "model"]);
  });

  test(`a prompt over the context has its code (stream: ${stream})`, async () => {
    const error = await caught(ask({ messages: user("word ".repeat(100_000)) }));
    assert.equal(error.code, "context_length_exceeded");
  });
}

test("an unknown route is a NotFoundError", async () => {
  const error = await caught(client.files.list().then((page) => page.data));
  assert.ok(error instanceof OpenAI.NotFoundError);
});

test("a failure in a stream is thrown", async () => {
  const request = { model: "words", messages, stream: true as const };
  const broken = { ...request, smmf_echo: { fail: "error:3" } };
  const error = await caught(client.chat.completions.create(broken).then(collected));
  assert.equal(error.code, "internal_error");
});

test("a time-out and a cancel are the client's own errors", async () => {
  const slow = { model: "words", messages, smmf_echo: { tokens: 500, step_ms: 50 } };
  await assert.rejects(
    client.chat.completions.create(slow, { timeout: 50 }),
    OpenAI.APIConnectionTimeoutError,
  );
  const control = new AbortController();
  const stream = client.chat.completions.create(
    { ...slow, stream: true },
    { signal: control.signal },
  );
  await stream;
  control.abort();
  await assert.rejects(
    client.chat.completions.create(slow, { signal: control.signal }),
    OpenAI.APIUserAbortError,
  );
});

test("a wrong key is an AuthenticationError where keys are configured", async () => {
  const locked = new OpenAI({ baseURL: process.env["SMMF_LOCKED_URL"]!, apiKey: "wrong" });
  const error = await caught(locked.chat.completions.create({ model: "words", messages }));
  assert.ok(error instanceof OpenAI.AuthenticationError);
  assert.equal(error.code, "invalid_api_key");
  assert.notEqual(locked.baseURL, url);
});
