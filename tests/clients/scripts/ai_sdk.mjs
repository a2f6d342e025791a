// What the Vercel AI SDK makes of the service.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, streamText } from "ai";

const [url, key] = process.argv.slice(2);
const prompt = "你是谁";
const quiet = { maxRetries: 0, prompt, onError: () => {} };

const provider = (apiKey = key) =>
  createOpenAICompatible({ name: "proxy", baseURL: `${url}/v1`, apiKey, includeUsage: true });

async function fails(act) {
  try {
    return await act();
  } catch (error) {
    return [error.name, error.statusCode ?? null, error.message];
  }
}

async function chat() {
  const { text, usage } = await generateText({ model: provider()("m"), ...quiet });
  return { text, usage: [usage.inputTokens, usage.outputTokens] };
}

async function stream() {
  const pieces = [];
  const answer = streamText({ model: provider()("m"), ...quiet });
  for await (const piece of answer.textStream) pieces.push(piece);
  const usage = await answer.usage;
  return { pieces, usage: [usage.inputTokens, usage.outputTokens] };
}

async function embeddings() {
  const model = provider().embeddingModel("e");
  return (await embedMany({ model, values: ["一", "二"], maxRetries: 0 })).embeddings;
}

async function cut() {
  const pieces = [];
  const errors = [];
  const answer = streamText({ model: provider()("odd:cut"), ...quiet });
  for await (const part of answer.fullStream) {
    if (part.type === "text-delta") pieces.push(part.text);
    if (part.type === "error") errors.push(String(part.error?.message ?? part.error));
  }
  return { pieces, errors };
}

// Read what there is and go: more only comes when we have left.
async function leave() {
  const pieces = [];
  const controller = new AbortController();
  const options = { model: provider()("odd:held"), ...quiet, abortSignal: controller.signal };
  for await (const part of streamText(options).fullStream) {
    if (part.type === "text-delta" && pieces.push(part.text) === 2) controller.abort();
  }
  return pieces;
}

const parts = {
  chat,
  stream,
  embeddings,
  wrong_key: () => fails(() => generateText({ model: provider("wrong")("m"), ...quiet })),
  cut,
  leave,
};
const answers = await Promise.all(Object.entries(parts).map(async ([name, part]) => [name, await part()]));
console.log(JSON.stringify(Object.fromEntries(answers)));
