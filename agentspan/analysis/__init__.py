"""Trees, statistics, search and export of recorded runs: functions that read a storage and never change it."""
