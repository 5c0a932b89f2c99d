"""LangGraph as `throughput` measures it: graphs of five nodes, each step checkpointed at once.

Runs in an environment of its own. `rival.py DATABASE` (a Postgres URL or an SQLite file) reads how
many graphs to run, one number a line, and answers each with `done`.
"""

from __future__ import annotations

import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, TypedDict

from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

NODES = 5
THREADS = 8


class State(TypedDict, total=False):
    """What the nodes pass on."""

    item: int
    text: str


def read(state: State) -> State:
    """Return the next item at once."""
    return {"item": state.get("item", -1) + 1, "text": "as it stands"}


def main() -> None:
    """Serve until standard input ends."""
    database = sys.argv[1]
    with ExitStack() as stack:
        saver: Any  # the two have no common type that `compile` takes
        if database.startswith("postgresql"):
            url = database.replace("postgresql+psycopg", "postgresql")
            options = {"autocommit": True, "row_factory": dict_row}
            pool = ConnectionPool(url, max_size=THREADS, kwargs=options, open=True)
            saver = PostgresSaver(stack.enter_context(pool))
            threads = THREADS
        else:
            saver = stack.enter_context(SqliteSaver.from_conn_string(database))
            threads = 1
        saver.setup()
        graph = _graph().compile(checkpointer=saver)

        def run(_number: int) -> None:
            thread = {"configurable": {"thread_id": str(uuid.uuid4())}}
            graph.invoke({}, thread, durability="sync")

        with ThreadPoolExecutor(threads) as workers:
            for line in sys.stdin:
                list(workers.map(run, range(int(line))))
                print("done", flush=True)


def _graph() -> StateGraph[State]:
    graph = StateGraph(State)
    names = [f"n{number}" for number in range(NODES)]
    for name in names:
        graph.add_node(name, read)
    for before, after in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(before, after)
    return graph


if __name__ == "__main__":
    main()
