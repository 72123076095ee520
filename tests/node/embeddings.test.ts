import assert from "node:assert/strict";
import { test } from "node:test";

import { client, only } from "./server.ts";

const input = ["the cat sat", "the cat slept", "stock market news"];
const dot = (a: number[], b: number[]) => a.reduce((sum, x, k) => sum + x * b[k]!, 0);

test("base64, which this client asks for by itself, and floats are the same numbers", async () => {
  const packed = await client.embeddings.create({ model: "near", input });
  const plain = await client.embeddings.create({ model: "near", input, encoding_format: "float" });
  for (const [k, one] of packed.data.entries()) {
    assert.equal(one.embedding.length, 32);
    assert.deepEqual(one.embedding, plain.data[k]!.embedding.map(Math.fround));
  }
  const [cat, otherCat, market] = packed.data.map((d) => d.embedding);
  assert.ok(dot(cat!, otherCat!) > dot(cat!, market!));
  assert.ok(packed.usage.prompt_tokens > 0);
});

test("token ids and fewer dimensions", async () => {
  const tokens = await client.embeddings.create({ model: "near", input: [[1, 2, 3], [4]] });
  assert.deepEqual([tokens.data.length, tokens.usage.prompt_tokens], [2, 4]);
  const short = await client.embeddings.create({ model: "nest", input: "abc", dimensions: 8 });
  assert.equal(only(short.data).embedding.length, 8);
});
