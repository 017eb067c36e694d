"""A LiveKit session without a room, traced by prefactor-livekit: a tool, one that fails, a model that fails."""

import asyncio
import logging

from livekit.agents import Agent, AgentSession, function_tool
from livekit.agents.llm import LLM, ChatChunk, ChoiceDelta, CompletionUsage, FunctionToolCall, LLMStream, ToolError
from prefactor_core import PrefactorCoreConfig, QueueConfig
from prefactor_http.config import HttpClientConfig
from prefactor_livekit import LiveKitToolSchemaConfig, PrefactorLiveKitSession
from program import API_TOKEN, API_URL, until_terminated

logging.disable(logging.WARNING)
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}


class FakeStream(LLMStream):
    """Gives one prepared answer: its text, or a call of a tool, and the usage of tokens."""

    async def _run(self) -> None:
        answer = self._llm.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        text, tool, prompt, completion = answer
        calls = [FunctionToolCall(name=tool, arguments='{"city": "Oslo"}', call_id=f"call-{tool}")] if tool else []
        delta = ChoiceDelta(role="assistant", content=text, tool_calls=calls)
        self._event_ch.send_nowait(ChatChunk(id="request-1", delta=delta))
        usage = CompletionUsage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
        self._event_ch.send_nowait(ChatChunk(id="request-1", usage=usage))


class FakeLLM(LLM):
    """A model with prepared answers."""

    model = "fake-large-1"
    provider = "fake"

    def __init__(self, *answers: tuple[str, str, int, int] | Exception) -> None:
        super().__init__()
        self.answers = list(answers)

    def chat(self, *, chat_ctx, tools=None, conn_options=None, **kwargs) -> FakeStream:
        return FakeStream(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class Forecaster(Agent):
    """An agent with three tools."""

    def __init__(self) -> None:
        super().__init__(instructions="Be brief.")

    @function_tool
    async def weather(self, city: str) -> str:
        """The weather in a city."""
        return f"rain in {city} 🌧"

    @function_tool
    async def book(self, city: str) -> str:
        """Book a seat."""
        raise ToolError("no seats left")

    @function_tool
    async def wait(self, city: str) -> str:
        """Wait until the run is terminated."""
        await until_terminated()
        return f"waited in {city}"


async def main() -> None:
    one_worker = QueueConfig(num_workers=1)  # several may send the end of the run before the end of its last span
    config = PrefactorCoreConfig(http_config=HttpClientConfig(API_URL, API_TOKEN), queue_config=one_worker)
    client = PrefactorLiveKitSession.create_client(config)
    await client.initialize()
    tracer = PrefactorLiveKitSession(
        client=client,
        agent_id="livekit-py",
        agent_name="Forecaster",
        tool_schemas={"book": LiveKitToolSchemaConfig(span_type="book-seat", input_schema=CITY)},
    )
    llm = FakeLLM(
        ("", "weather", 21, 8), ("Rain.", "", 34, 2),
        ("", "book", 40, 4), ("No seats.", "", 50, 3),
        TimeoutError("the model is overloaded"),
        ("", "wait", 60, 5), ("Done.", "", 70, 1),
    )  # fmt: skip
    async with AgentSession(llm=llm) as session:
        await tracer.start(session=session, agent=Forecaster())
        for question in ("Will it rain in Oslo?", "Book a seat.", "Are you there?", "Wait."):
            try:
                await session.run(user_input=question)
            except TimeoutError as error:
                print(f"failed: {error}")
    await tracer.close()
    await client.close()
    print("ended")


asyncio.run(main())
