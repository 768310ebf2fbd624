"""The same experiment trained in several ways, and what may be said about the differences; the command `compare`.

`plan` says which runs a comparison consists of and what must be equal among them; `jobs` has them trained, side by side, by
the command `train`; `results` reads their folders and finds what differs; `intervals` knows the statistics over seeds; `report`
puts it into words, tables and `comparison.json`, and `page` into a page for a browser. `session` is one call of the command.
"""
