"""Episodes on disk (``store``), training windows drawn from them (``windows``), broken ones (``quarantine``); data sets of
any format (``dataset``, ``formats``), play recorded (``recording``), replayed (``replaying``) and looked at (``summary``).
"""
