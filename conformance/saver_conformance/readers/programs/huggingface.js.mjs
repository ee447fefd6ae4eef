// /// script
// dependencies = ["@huggingface/transformers@4.3.1"]
//
// [tool.saver-conformance]
// name = "huggingface.js"
// place = 21
// text = "transformers.js, which runs in browsers: its tokenizers and chat templates"
// gives = ["tokens", "chat"]
// fast = true
// ///
// Reads the tokenizer's files with transformers.js; weights it takes only as ONNX.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { basename, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { readFileSync } from "node:fs";

const modules = process.env.READER_MODULES;
const require = createRequire(join(modules, "reader.js"));
const home = join(modules, "@huggingface/transformers");
const { version } = JSON.parse(readFileSync(join(home, "package.json"), "utf8"));
const { AutoTokenizer, env } = await import(
  pathToFileURL(require.resolve("@huggingface/transformers")).href
);
env.allowRemoteModels = false;
env.allowLocalModels = true;

/** The codes of errors that say that the environment lacks a package. */
const LACKING = ["ERR_MODULE_NOT_FOUND", "MODULE_NOT_FOUND"];

/** The answer to one part of a question: a value, or why there is none. */
async function ask(answer, part, find) {
  try {
    const value = await find();
    if (value === undefined) answer.unsupported[part] = "the tokenizer has no chat template";
    else answer[part] = value;
  } catch (error) {
    const kind = LACKING.includes(error?.code) ? "unavailable" : "errors";
    answer[kind][part] = String(error);
  }
}

async function read(question) {
  const started = performance.now();
  const answer = { errors: {}, unsupported: {}, unavailable: {} };
  env.localModelPath = dirname(question.tokenizer);
  let tokenizer;
  const load = async () =>
    (tokenizer ??= await AutoTokenizer.from_pretrained(basename(question.tokenizer)));
  await ask(answer, "tokens", async () => {
    await load();
    return question.texts.map((text) => tokenizer.encode(text, { add_special_tokens: false }));
  });
  if (question.messages)
    await ask(answer, "chat", async () => {
      await load();
      const options = { tokenize: false, add_generation_prompt: true };
      return tokenizer.apply_chat_template(question.messages, options);
    });
  answer.seconds = (performance.now() - started) / 1000;
  return answer;
}

const write = (plain) => process.stdout.write(JSON.stringify(plain) + "\n");
console.log = console.info = console.debug = console.error;
write({ versions: { "transformers.js": version }, kind: "logits" });
for await (const line of createInterface({ input: process.stdin })) {
  write(await read(JSON.parse(line)));
}
