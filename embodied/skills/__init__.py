"""What was learnt and kept: the library, the gate in front of it, packs to share it, and the statistics of
both.

Modules: ``library`` (SQLite + content-addressed artifacts), ``artifacts``, ``gate``, ``distinct``, ``packs``,
``statistics``. Import from them; this file stays empty so that ``embodied.core`` can use the statistics.
"""
