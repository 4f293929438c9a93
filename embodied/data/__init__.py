"""Episodes on disk (``store``), training windows drawn from them (``windows``), and broken ones
(``quarantine``).
"""
