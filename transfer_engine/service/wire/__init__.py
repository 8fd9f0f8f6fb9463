"""FTS3's JSON, both ways: the only place that knows its names.

`submission` and `query` read what clients send, `views` writes what they get back. Names, types,
defaults and messages are those of the FTS3 REST service (fts-rest-flask 3.13), which clients compare
literally.
"""
