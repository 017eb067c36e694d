"""All that wings take from the findings of `analysis`: a list of names, nothing is defined here.

A name is imported at its first use. A wing that needs another one adds it here, to the imports and to the table, with a
line that says what it is.
"""

from typing import TYPE_CHECKING

from agentspan import host

if TYPE_CHECKING:
    """Runs, and what is read of them."""
    from agentspan.analysis.causes import (
        left_open,  # the open runs of programs that have died
    )
    from agentspan.analysis.dataset import (
        EXPECTED,  # the names of a run's expected output
        INPUT,  # the members of metadata that can hold a run's input
        as_text,  # a value as text
    )
    from agentspan.analysis.drift_metrics import (
        gather,  # the values of all metrics in a group of runs
    )
    from agentspan.analysis.runs import (
        find_runs,  # the runs that match a filter
    )
    from agentspan.analysis.stored_run import (
        StoredRun,  # a run as it was when it was read
    )
    from agentspan.analysis.tree import (
        sums,  # the sums over the spans of a run
        trial_of,  # the number of a trial of a case
    )
    from agentspan.analysis.versions import (
        group_of,  # the filter of a group that is named in one text
    )

    """Outcomes: which runs passed."""
    from agentspan.analysis.check import (
        Config,  # the budgets, calls and baseline that runs are checked by
        check,  # the verdict on runs
    )
    from agentspan.analysis.outcomes import (
        EVALUATION,  # the member of metadata that says how a trial is judged
        JudgedBy,  # how a trial is judged
        OutcomeRule,  # a condition on the newest score of a run
        check_known,  # refuses a rule that no run can fulfill
        outcomes,  # the outcome of each run
        rule_of,  # a rule, from its text
    )

    """The test whether versions differ by more than chance."""
    from agentspan.analysis.cases import (
        CaseRow,  # a case, and its runs in each version
        table_of,  # the cases of two groups of runs
    )
    from agentspan.analysis.doubts import (
        Chosen,  # the outcome by which cases were chosen
        Verdict,  # what a comparison says
        chosen_by,  # by which outcome cases were chosen
        doubt_of,  # why a verdict is withheld
    )
    from agentspan.analysis.drift import (
        share_interval,  # the interval of a share
    )
    from agentspan.analysis.power import (
        ALPHA,  # the level of the outcome's test
        POWER,  # how often a drop is to be found
        GroupSizes,  # sizes and variances of two groups
    )
    from agentspan.analysis.statistics import (
        FEWEST_TASKS,  # the fewest tasks that allow a comparison within tasks
        UNEQUAL,  # the factor of p where sides have other numbers of trials
        Interval,  # the bounds of a confidence interval
        PairedCase,  # the trials of one case on both sides
        binomial,  # the probability of so many successes
        exact_interval,  # the exact interval of a share
        mean_interval,  # the interval of a mean of differences
        paired_tails,  # the one-sided ps of a mean difference of cases
        variance_of,  # the variance of a ratio, clustered by run
    )
else:
    __getattr__ = host.lazily(
        __name__,
        {
            "agentspan.analysis.causes": "left_open",
            "agentspan.analysis.dataset": "EXPECTED INPUT as_text",
            "agentspan.analysis.drift_metrics": "gather",
            "agentspan.analysis.runs": "find_runs",
            "agentspan.analysis.stored_run": "StoredRun",
            "agentspan.analysis.tree": "sums trial_of",
            "agentspan.analysis.versions": "group_of",
            "agentspan.analysis.check": "Config check",
            "agentspan.analysis.outcomes": "EVALUATION JudgedBy OutcomeRule check_known outcomes rule_of",
            "agentspan.analysis.cases": "CaseRow table_of",
            "agentspan.analysis.doubts": "Chosen Verdict chosen_by doubt_of",
            "agentspan.analysis.drift": "share_interval",
            "agentspan.analysis.power": "ALPHA GroupSizes POWER",
            "agentspan.analysis.statistics": "FEWEST_TASKS Interval PairedCase UNEQUAL binomial exact_interval "
            "mean_interval paired_tails variance_of",
        },
    )
