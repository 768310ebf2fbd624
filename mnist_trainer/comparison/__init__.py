"""Comparisons of scheduler modes, schedules and other settings over seeds; the command `compare`.

`plan` lists the runs of a comparison and checks that they can be compared. `session` is one call of the command: it trains the
runs side by side. `finished` compares finished runs as they are. `results` reads the folders of runs and finds the differences.
`intervals` computes the statistics over seeds. `report` writes sentences, tables and `comparison.json`; `page` writes a page
for a browser; `progress` shows progress bars.
"""
