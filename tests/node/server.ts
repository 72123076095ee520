// The server under test and its models, as test_openai_node.py has started them.
import OpenAI from "openai";

export const url = process.env["SMMF_BASE_URL"]!;
export const WORDS = " the quick brown fox jumps"; // of the model "words"

export const client = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });

export const user = (content: string) => [{ role: "user" as const, content }];

export async function collected<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of stream) items.push(item);
  return items;
}

export function only<T>(items: readonly T[]): T {
  if (items.length !== 1) throw new Error(`${items.length} items, expected one`);
  return items[0]!;
}
