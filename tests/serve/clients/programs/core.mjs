// An agent that uses @prefactor/core by hand: an agent span with a model, a chain of tools and a tool that fails.
import { createConfig, createCore, SpanType, withSpan } from "@prefactor/core";
import { untilTerminated } from "./program.mjs";

const any = { type: "object", additionalProperties: true };
const { tracer, agentManager, shutdown } = createCore(
  createConfig({
    httpConfig: {
      apiUrl: process.env.PREFACTOR_API_URL,
      apiToken: process.env.PREFACTOR_API_TOKEN,
      agentId: "forecaster-js",
      agentIdentifier: "2.1.0",
      agentName: "Forecaster",
      agentDescription: "Says whether it will rain",
    },
  }),
);
agentManager.registerSchema({
  external_identifier: "forecaster-schema",
  span_schemas: { agent: any, llm: any, tool: any, chain: any },
  span_result_schemas: { agent: any, llm: any, tool: any, chain: any },
});
agentManager.startInstance();

async function askModel(question, text, promptTokens, completionTokens) {
  const span = tracer.startSpan({
    name: "model-call",
    spanType: SpanType.LLM,
    inputs: { "ai.model.id": "fake-large-1", messages: [{ role: "user", content: question }] },
    metadata: { provider: "fake" },
  });
  const totalTokens = promptTokens + completionTokens;
  tracer.endSpan(span, { outputs: { text }, tokenUsage: { promptTokens, completionTokens, totalTokens } });
}

const weather = (city) =>
  withSpan({ name: "weather", spanType: SpanType.TOOL, inputs: { city } }, () => ({ city, sky: "rain 🌧", mm: 4.5 }));

const book = (city) =>
  withSpan({ name: "book", spanType: SpanType.TOOL, inputs: { city } }, () => {
    throw new RangeError("no seats left");
  });

await withSpan({ name: "plan", spanType: SpanType.AGENT, inputs: { goal: "Oslo in the rain" } }, async () => {
  await askModel("Will it rain?", "Asking the weather.", 21, 8);
  await withSpan({ name: "look-up", spanType: SpanType.CHAIN, inputs: { cities: ["Oslo"] } }, () => weather("Oslo"));
  await book("Oslo").catch((error) => error);
  await untilTerminated();
  await askModel("Is there another way?", "By train.", 13, 5);
  await weather("Bergen");
  return { answer: "Take the train." };
});
agentManager.finishInstance();
await shutdown();
console.log("ended");
