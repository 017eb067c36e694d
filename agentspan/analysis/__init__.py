"""Trees, statistics, search and export of recorded runs: functions over the reads of a storage."""
