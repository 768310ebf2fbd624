"""The same experiment trained in several ways, and the differences in the results; the command `compare`.

`plan` lists the runs of a comparison and the settings that must be equal among them; `session` is one call of the command, and
trains the runs side by side; `results` reads their folders and finds the differences; `intervals` computes the statistics
over seeds; `report` writes sentences, tables and `comparison.json`, `page` a page for a browser, `progress` the progress bars.
"""
