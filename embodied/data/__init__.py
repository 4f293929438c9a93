"""Episodes on disk (``store``), training windows drawn from them (``windows``) and broken ones (``quarantine``).

Data sets of any format (``dataset``, ``formats``), recorded from play (``recording``), replayed (``replaying``) and
looked at (``summary``).
"""
