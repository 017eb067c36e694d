"""Two examples of each command, as its help prints them. A test parses them all, and runs what it can."""

_LINES = """
overview: --since 7d  # the last week
overview: --outcome 'reward>=1'  # by a score
runs --failed --since 1d  # the failed runs of the last day
runs --sort cost -n 10  # the ten runs that cost most
show -  # the latest run
show -#12  # its step 12, in full
search timeout booking  # the steps that have both words
search '"read timed out"' --run -  # a phrase, in the latest run
session: show --session chat-7  # the runs of one conversation
session: show --session chat-7 --failed  # those that failed
cost --since 30d  # by model, in the last month
cost --by prompt  # prompt by prompt
stats --since 7d  # all runs of the last week
stats --agent researcher --by version  # an agent, version by version
sql "select max(duration_ms) from spans"  # the longest step, in ms
sql "select distinct agent from runs"  # the names of all runs' agents
open  # the list of all runs
open -  # the latest run
why --since 7d  # what failed in the last week
why -  # why the latest run failed
diff researcher@1.1 researcher@1.2  # two versions of an agent
diff -#2 --context  # what came into a model call
versions researcher  # the versions of an agent
versions researcher --outcome 'reward>=1'  # what became worse, by a score
check  # all runs, as pyproject.toml says
check version=1.2 --junit report.xml  # one version, with a report for CI
evaluate app:agent --cases c.jsonl  # cases through a function
evaluate app:agent --cases c.jsonl --trials 3  # each case three times
score - --mark good  # the latest run was good
score -#12 relevance 0.5  # a number for its step 12
record my_agent.py --fast  # a program, with its own options
record -m my_agents.nightly  # a module
sessions: import --list  # all sessions on this machine
sessions: import --list claude --since 7d  # those of Claude Code in the last week
watch claude  # the sessions of Claude Code
watch --unattended  # all, also without a terminal
tail: show --follow  # the latest run, and those after it
tail: show - --follow --one --all  # one run, from its first step on
serve  # this file, on port 8484
serve --watch claude  # with the sessions of Claude Code
run: run allow -  # as much again of its budget
run: run terminate - --reason stuck  # for good
allow: run allow -  # as much again of each limit
allow: run allow - --usd +2 --steps +50  # two dollars and 50 steps
terminate: run terminate - --reason 'too expensive'  # the latest run
terminate: run terminate researcher@1.2 --reason stuck  # the latest run of a version
demo  # into agentspan.db
demo --db demo.db  # into a file of its own
export - --format html -o run.html  # a run as one page for a browser
export --failed --format dataset  # the failed runs with their input
import claude  # the sessions of Claude Code
import runs.jsonl.gz  # what export wrote
copy archive.db  # to another file
copy http://localhost:4318 --follow  # to a collector, from now on
backup: copy --backup today.db  # the file
backup: copy --backup today.db --db other.db  # another file
init: doctor --init  # migrate a file
init: doctor --init postgresql://localhost/agents  # make the tables on a server
doctor --dry-run  # look, and change nothing
doctor --idle 2h  # close runs made by id, too
prune --older-than 30d --keep-failed  # a month, and what failed, stays
prune --max-size 500MB --dry-run  # what would go
rederive: doctor --rederive --prices  # the costs of all runs
rederive: doctor --rederive - --summaries  # the summaries of the latest run
mcp  # the file of this folder
mcp --db runs.db  # another file
setup claude  # for this user, in Claude Code
setup claude --remove  # take it back
skill: setup --print-skill  # how to find what failed
skill: setup --print-skill instrument  # how to record a program
completion: setup bash >> ~/.bashrc  # for bash
completion: setup zsh >> ~/.zshrc  # for zsh
"""
"""The call of each example, and what it is about. Before that of a way, as `show --follow`, stands its name."""
EXAMPLES: dict[str, list[tuple[str, str]]] = {}
"""By command: what an example is about, and the example without the name of the program."""
for _line in _LINES.strip().splitlines():
    _call, _, _about = _line.partition("  # ")
    _way, _, _example = _call.rpartition(": ")
    EXAMPLES.setdefault(_way or _example.partition(" ")[0], []).append((_about, _example))
