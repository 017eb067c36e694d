"""Eight calls: an agent's, chats and completions, whole, async and as streams; a search."""

import asyncio
import os

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike


def weather(city: str) -> str:
    """The weather in a city."""
    return "rain"


def new_model():
    model = OpenAILike("m", api_base=f"{os.environ['MODEL']}/v1", api_key="x", is_function_calling_model=True)
    model.is_chat_model = True
    return model


asked = [ChatMessage(role="user", content="Rome?")]


async def main():
    model = new_model()
    await FunctionAgent(name="weatherman", tools=[weather], llm=model).run("Rome?")
    await model.achat(asked)
    await model.acomplete("Rome?")
    async for _ in await model.astream_chat(asked):
        pass


asyncio.run(main())
model = new_model()
model.chat(asked)
model.complete("Rome?")
for _ in model.stream_chat(asked):
    pass
index = VectorStoreIndex.from_documents([Document(text="sunny")], embed_model=MockEmbedding(embed_dim=3))
index.as_retriever().retrieve("Rome?")
