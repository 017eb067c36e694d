// A LangChain.js agent with the middleware of @prefactor/langchain: a tool, a tool that fails, a tool that waits.
import { init, shutdown } from "@prefactor/langchain";
import { AIMessage, createAgent, fakeModel, tool } from "langchain";
import { z } from "zod";
import { untilTerminated } from "./program.mjs";

const middleware = init({
  httpConfig: {
    apiUrl: process.env.PREFACTOR_API_URL,
    apiToken: process.env.PREFACTOR_API_TOKEN,
    agentId: "langchain-js",
    agentIdentifier: "1.2.0",
    agentName: "Traveller",
    agentDescription: "Books a journey",
  },
});

const city = { schema: z.object({ city: z.string() }) };
const tools = [
  tool(({ city }) => `rain in ${city} 🌧`, { name: "weather", description: "The weather", ...city }),
  tool(
    () => {
      throw new RangeError("no seats left");
    },
    { name: "book", description: "Book a seat", ...city },
  ),
  tool(
    async ({ city }) => {
      await untilTerminated();
      return `waited in ${city}`;
    },
    { name: "wait", description: "Wait", ...city },
  ),
];

function says(content, input_tokens, output_tokens, ...calls) {
  const tool_calls = calls.map((name) => ({ name, args: { city: "Oslo" }, id: `call-${name}`, type: "tool_call" }));
  const usage_metadata = { input_tokens, output_tokens, total_tokens: input_tokens + output_tokens };
  return new AIMessage({ content, tool_calls, usage_metadata });
}

function agent(...answers) {
  const model = fakeModel();
  model.modelName = "fake-large-1";
  for (const answer of answers) {
    model.respond(answer);
  }
  return createAgent({ model, tools, systemPrompt: "Be brief.", middleware: [middleware] });
}

const ask = (agent) => agent.invoke({ messages: [{ role: "user", content: "Will it rain in Oslo?" }] });

await ask(agent(says("", 21, 8, "weather"), says("Yes.", 34, 2)));
try {
  await ask(agent(says("", 11, 3, "book")));
} catch (error) {
  console.log(`failed: ${error.message}`);
}
try {
  await ask(agent(new Error("the model is overloaded")));
} catch (error) {
  console.log(`failed: ${error.message}`);
}
await ask(agent(says("", 40, 4, "wait"), says("Done.", 50, 1)));
await shutdown();
console.log("ended");
