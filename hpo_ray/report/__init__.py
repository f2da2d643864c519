"""The report of a run: its story once, as blocks; written as one HTML page or as Markdown.

Reads histories and frames. Knows no Ray. A page needs no network, and all that comes from a run is escaped.
"""
