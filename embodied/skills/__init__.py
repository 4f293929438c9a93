"""What was learnt and kept: the library, the gate in front of it, packs to share it, and the statistics of
both.

Modules: ``library`` (SQLite + content-addressed artifacts), ``schema``, ``tables`` (its file), ``writer``, ``heads``,
``manifest`` (facets), ``index`` and ``retrieval``, ``artifacts``, ``gate``, ``consensus``, ``packs`` and ``signing``,
``distinct``, ``statistics``. Import from them; this file stays empty so that ``embodied.core`` can use some of them.
"""
