import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";

import { client, collected, only, user } from "./server.ts";

test("models are listed and retrieved, whatever is in their names", async () => {
  const models = await collected(client.models.list());
  const names = models.map((model) => model.id);
  assert.ok(names.includes("words") && names.includes("org/words:tag"), String(names));
  for (const model of models) {
    assert.deepEqual(await client.models.retrieve(model.id), model);
    assert.deepEqual([model.object, model.owned_by], ["model", "smmf"]);
  }
});

test("a model with a slash in its name answers", async () => {
  const request = { model: "org/words:tag", messages: user("hi") };
  const answer = await client.chat.completions.create(request);
  assert.equal(answer.model, "org/words:tag");
  assert.ok(only(answer.choices).message.content);
});

test("an unknown one is not found", async () => {
  await assert.rejects(client.models.retrieve("org/none:7b"), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.match(error.message, /org\/none:7b/);
    return true;
  });
});
