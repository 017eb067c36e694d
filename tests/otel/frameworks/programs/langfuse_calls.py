"""A function that Langfuse observes, with a call, a stream and a response; a call outside of it."""

import os

os.environ |= {"LANGFUSE_PUBLIC_KEY": "x", "LANGFUSE_SECRET_KEY": "x", "LANGFUSE_HOST": "http://127.0.0.1:9"}

from langfuse import observe
from langfuse.openai import OpenAI

client = OpenAI(base_url=f"{os.environ['MODEL']}/v1", api_key="x")
asked = [{"role": "user", "content": "hi"}]


@observe()
def ask():
    client.chat.completions.create(model="m", messages=asked)
    for _ in client.chat.completions.create(
        model="m", messages=asked, stream=True, stream_options={"include_usage": True}
    ):
        pass
    client.responses.create(model="m", input="hi")


ask()
client.chat.completions.create(model="m", messages=asked)
