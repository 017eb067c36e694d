"""A graph with a name that is called twice, and fails the second time; one without a name."""

import os
from contextlib import suppress

from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph

model = ChatOpenAI(model="m", base_url=f"{os.environ['MODEL']}/v1", api_key="x")


def ask(state):
    if len(state["messages"]) > 1:
        raise ValueError("one question at a time")
    return {"messages": [model.invoke(state["messages"])]}


graph = StateGraph(MessagesState).add_node("ask", ask).add_edge(START, "ask").add_edge("ask", END)
named = graph.compile(name="researcher")
named.invoke({"messages": [("user", "Rome?")]})
with suppress(ValueError):
    named.invoke({"messages": [("user", "Rome?"), ("user", "Oslo?")]})
graph.compile().invoke({"messages": [("user", "Paris?")]})
