"""The language agent: what it is asked, what it may answer, and the backends that answer."""
