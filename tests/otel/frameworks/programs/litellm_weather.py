"""A call of a model that does not exist any more, and one of the model that stands in for it."""

import agentspan

agentspan.instrument()

import litellm

litellm.suppress_debug_info = True
answer = litellm.completion(
    model="openai/gone-1",
    messages=[{"role": "user", "content": "Is it dry in Rome?"}],
    fallbacks=["openai/gpt-4.1-mini"],
)
print(answer.choices[0].message.content)
