// What the OpenAI SDK for Node makes of the service.

import { File } from "node:buffer";
import OpenAI, { toFile } from "openai";

globalThis.File ??= File; // node 18 has it, but not there

const [url, key] = process.argv.slice(2);
const messages = [{ role: "user", content: "你是谁" }];
const statuses = [400, 403, 404, 409, 422, 429, 500, 503];

const sdk = (path = "/v1", apiKey = key, maxRetries = 0) =>
  new OpenAI({ baseURL: url + path, apiKey, maxRetries });

const ask = async (model, maxRetries = 0, apiKey = key) =>
  (await sdk("/v1", apiKey, maxRetries).chat.completions.create({ model, messages })).choices[0].message.content;

const start = (model) => sdk().chat.completions.create({ model, messages, stream: true });

async function fails(act) {
  try {
    return await act();
  } catch (error) {
    return [error.constructor.name, error.status ?? null, error.status ? error.code : error.message];
  }
}

async function stream() {
  const pieces = [];
  for await (const chunk of await start("m")) pieces.push(chunk.choices[0].delta.content ?? "");
  return pieces;
}

// As numbers, and as the SDK asks where nothing is said: in base64.
async function embeddings() {
  const input = ["一", "二"];
  const numbers = await sdk().embeddings.create({ model: "e", input, encoding_format: "float" });
  const packed = await sdk().embeddings.create({ model: "e", input });
  return { float: numbers.data.map((item) => item.embedding), default: packed.data.map((item) => item.embedding) };
}

async function models() {
  const ids = [];
  for await (const model of sdk().models.list()) ids.push(model.id);
  return [ids, (await sdk().models.retrieve("mock-gpt-model")).id];
}

async function upload() {
  const file = await toFile(Buffer.alloc(3 << 20, "RIFF"), "声.wav", { type: "audio/wav" });
  return { seen: await sdk("/v1/echo").audio.transcriptions.create({ model: "whisper", file }) };
}

async function errors() {
  const named = {};
  for (const status of statuses) named[status] = (await fails(() => ask(`odd:status_${status}`)))[0];
  return named;
}

async function cut() {
  const pieces = [];
  const error = await fails(async () => {
    for await (const chunk of await start("odd:cut")) pieces.push(chunk);
  });
  return { pieces: pieces.length, error };
}

// Read what there is and go: more only comes when we have left.
async function leave() {
  const pieces = [];
  const chunks = await start("odd:held");
  for await (const chunk of chunks) {
    pieces.push(chunk.choices[0].delta.content);
    if (pieces.length === 2) chunks.controller.abort();
  }
  return pieces;
}

const parts = {
  chat: () => ask("m"),
  stream,
  embeddings,
  models,
  upload,
  errors,
  wrong_key: () => fails(() => ask("m", 0, "wrong")),
  refused: () => fails(() => ask("odd:status_401", 2)),
  flaky: () => fails(() => ask("odd:flaky", 2)),
  cut,
  leave,
};
const answers = await Promise.all(Object.entries(parts).map(async ([name, part]) => [name, await part()]));
console.log(JSON.stringify(Object.fromEntries(answers)));
